-- Version 3 of schema rowseal: what rotation, revocation and purge need.

-- Where the slot of a cell begins and how long it is (docs/format.md, 1); guarded by is_cell in the domains.
CREATE FUNCTION rowseal.slot_offset(cell pg_catalog.bytea) RETURNS pg_catalog.int4
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 8 + get_byte(cell, 6) + get_byte(cell, 7);

CREATE FUNCTION rowseal.slot_length(cell pg_catalog.bytea) RETURNS pg_catalog.int4
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 35 + 256 * get_byte(cell, rowseal.slot_offset(cell) + 33) + get_byte(cell, rowseal.slot_offset(cell) + 34);

-- The slot of a cell: dek_id, wrap algorithm, key_id, wrapped data key.
CREATE FUNCTION rowseal.slot(cell pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(cell FROM rowseal.slot_offset(cell) + 1 FOR rowseal.slot_length(cell));

-- The key that a cell's data key is wrapped under: of a master key or of a branch key.
CREATE FUNCTION rowseal.key_id(cell pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(cell FROM rowseal.slot_offset(cell) + 18 FOR 16);

-- The same cell with another slot; its payload stays where it is.
CREATE FUNCTION rowseal.with_slot(cell pg_catalog.bytea, slot pg_catalog.bytea) RETURNS pg_catalog.bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(cell FROM 1 FOR rowseal.slot_offset(cell)) || slot
    || substring(cell FROM rowseal.slot_offset(cell) + rowseal.slot_length(cell) + 1);

REVOKE ALL ON FUNCTION rowseal.slot_offset(pg_catalog.bytea), rowseal.slot_length(pg_catalog.bytea),
    rowseal.slot(pg_catalog.bytea), rowseal.key_id(pg_catalog.bytea),
    rowseal.with_slot(pg_catalog.bytea, pg_catalog.bytea) FROM PUBLIC;

-- A revoked tenant has keys that nobody may use until they are reactivated; a shredded one has none any more.
ALTER TABLE rowseal.tenant DROP CONSTRAINT tenant_state_check;
ALTER TABLE rowseal.tenant ADD CONSTRAINT tenant_state_check
    CHECK (state IN ('registering', 'active', 'revoked', 'shredded'));
ALTER TABLE rowseal.tenant ADD COLUMN reason pg_catalog.text, ADD COLUMN changed_at pg_catalog.timestamptz;

-- Until when a deactivated version was reactivated for a restored backup; and when the KMS will delete a purged one.
ALTER TABLE rowseal.master_key ADD COLUMN restore_until pg_catalog.timestamptz, ADD COLUMN deletion_at pg_catalog.timestamptz;

-- The states of a rotation, in their order, and what it does to each cell: another slot, or other keys and payload.
ALTER TABLE rowseal.rotation ADD CONSTRAINT rotation_state_check
    CHECK (state IN ('creating', 'switching', 'rewrapping', 'verifying', 'deactivating', 'done'));
ALTER TABLE rowseal.rotation ADD COLUMN depth pg_catalog.text NOT NULL DEFAULT 'rewrap' CHECK (depth IN ('rewrap', 'reseal'));
-- The epoch that every live proxy must have acknowledged before cells are wrapped again.
ALTER TABLE rowseal.rotation ADD COLUMN switched_epoch pg_catalog.int8;

-- epoch is what a proxy acknowledges: no cell under a key of an earlier epoch is on its way. taken_up is what it goes by.
ALTER TABLE rowseal.proxy ADD COLUMN taken_up pg_catalog.int8;
