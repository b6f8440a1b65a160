-- Version 2 of schema rowseal: a domain for each further logical type, and for arrays of each.

DO $body$
DECLARE
    domain_name pg_catalog.text;
    of_version_1 pg_catalog.text[] := '{text,varchar,int4,int8,bool,date,timestamptz,numeric,uuid,jsonb,bytea}';
    added pg_catalog.text[] := '{bpchar,citext,int2,float4,float8,time,timetz,timestamp,interval,json,inet,cidr}';
BEGIN
    FOR domain_name IN
        SELECT unnest(added) UNION ALL SELECT unnest(of_version_1 || added) || '_array'
    LOOP
        EXECUTE format(
            'CREATE DOMAIN rowseal.%I AS pg_catalog.bytea CONSTRAINT is_cell CHECK (rowseal.is_cell(value))',
            domain_name
        );
        EXECUTE format('GRANT USAGE ON TYPE rowseal.%I TO PUBLIC', domain_name);
    END LOOP;
END
$body$;
