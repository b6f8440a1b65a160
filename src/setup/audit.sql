-- The latest checkpoint of the audit log of every proxy, so that a log that was cut or put back to an older state shows.
CREATE TABLE rowseal.audit_checkpoint (
    log_id     pg_catalog.text PRIMARY KEY,
    origin     pg_catalog.text NOT NULL UNIQUE,
    verifier   pg_catalog.text NOT NULL,
    tree_size  pg_catalog.int8 NOT NULL CHECK (tree_size >= 0),
    root_hash  pg_catalog.bytea NOT NULL CHECK (octet_length(root_hash) = 32),
    note       pg_catalog.text NOT NULL,
    proxy      pg_catalog.uuid NOT NULL,
    written_at pg_catalog.timestamptz NOT NULL DEFAULT now()
);

-- It only grows, whoever writes.
CREATE FUNCTION rowseal.audit_checkpoint_grows() RETURNS pg_catalog.trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog
AS $body$
BEGIN
    IF new.tree_size < old.tree_size OR new.origin <> old.origin OR new.verifier <> old.verifier THEN
        RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'an audit checkpoint does not go back';
    END IF;
    RETURN new;
END
$body$;
CREATE TRIGGER grows BEFORE UPDATE ON rowseal.audit_checkpoint
    FOR EACH ROW EXECUTE FUNCTION rowseal.audit_checkpoint_grows();

REVOKE ALL ON rowseal.audit_checkpoint FROM PUBLIC;
REVOKE ALL ON FUNCTION rowseal.audit_checkpoint_grows() FROM PUBLIC;
