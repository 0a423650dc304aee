CREATE TABLE "audit_pending" (
	"id" bigint DEFAULT nextval('audit_entries_id_seq') NOT NULL,
	"org_id" varchar(255),
	"at" timestamp with time zone DEFAULT now() NOT NULL,
	"actor_kind" varchar(16) NOT NULL,
	"actor_id" text NOT NULL,
	"actor_label" text NOT NULL,
	"address" varchar(64),
	"request_id" varchar(128),
	"action" varchar(64) NOT NULL,
	"subject_type" varchar(32) NOT NULL,
	"subject_id" text NOT NULL,
	"subject_name" text,
	"outcome" varchar(64) DEFAULT 'OK' NOT NULL,
	"details" json NOT NULL
);
--> statement-breakpoint
DROP TRIGGER keep_audit_entries ON audit_entries;--> statement-breakpoint
DROP TRIGGER keep_audit_entries_whole ON audit_entries;--> statement-breakpoint
DROP FUNCTION keep_audit_entries;--> statement-breakpoint
WITH unsealed AS (DELETE FROM audit_entries WHERE number IS NULL RETURNING *)
INSERT INTO audit_pending SELECT id, org_id, at, actor_kind, actor_id, actor_label, address, request_id, action, subject_type,
  subject_id, subject_name, outcome, details FROM unsealed;--> statement-breakpoint
DROP INDEX "idx_audit_entries_unsealed";--> statement-breakpoint
DROP INDEX "audit_entries_chain";--> statement-breakpoint
ALTER TABLE "audit_entries" ALTER COLUMN "number" SET NOT NULL;--> statement-breakpoint
ALTER TABLE "audit_entries" ALTER COLUMN "hash" SET NOT NULL;--> statement-breakpoint
CREATE UNIQUE INDEX "audit_entries_chain" ON "audit_entries" USING btree (coalesce(org_id, ''),"number");--> statement-breakpoint
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;--> statement-breakpoint
CREATE TRIGGER keep_audit_entries BEFORE UPDATE OR TRUNCATE ON audit_entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();--> statement-breakpoint
CREATE TRIGGER keep_audit_pending BEFORE UPDATE OR TRUNCATE ON audit_pending
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();--> statement-breakpoint
CREATE FUNCTION keep_untrimmed_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM gone WHERE NOT EXISTS (
    SELECT FROM audit_chains chain WHERE chain.org_id = coalesce(gone.org_id, '') AND gone.number <= chain.anchor_number))
  THEN RAISE EXCEPTION 'audit_entries is append-only' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER keep_untrimmed_audit_entries AFTER DELETE ON audit_entries REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION keep_untrimmed_audit_entries();--> statement-breakpoint
CREATE FUNCTION keep_unsealed_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM gone WHERE NOT EXISTS (
    SELECT FROM audit_entries sealed WHERE sealed.id = gone.id AND
      (sealed.org_id, sealed.at, sealed.actor_kind, sealed.actor_id, sealed.actor_label, sealed.address, sealed.request_id,
        sealed.action, sealed.subject_type, sealed.subject_id, sealed.subject_name, sealed.outcome, sealed.details::text)
      IS NOT DISTINCT FROM
      (gone.org_id, gone.at, gone.actor_kind, gone.actor_id, gone.actor_label, gone.address, gone.request_id,
        gone.action, gone.subject_type, gone.subject_id, gone.subject_name, gone.outcome, gone.details::text)))
  THEN RAISE EXCEPTION 'audit_pending is append-only' USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $$;--> statement-breakpoint
-- After the statement: by then it has put into audit_entries what it took from here.
CREATE TRIGGER keep_unsealed_audit_entries AFTER DELETE ON audit_pending REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION keep_unsealed_audit_entries();--> statement-breakpoint
-- As nextPlace in src/audit/seal.ts has it: the first hash is the one of the entry before.
CREATE FUNCTION next_audit_hash(hash bytea, head text, canonical text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN sha256(coalesce(hash, decode(head, 'hex')) || convert_to(canonical, 'UTF8'));
END $$;--> statement-breakpoint
CREATE AGGREGATE audit_hash(head text, canonical text) (SFUNC = next_audit_hash, STYPE = bytea);--> statement-breakpoint
ALTER TABLE "audit_pending" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "audit_pending" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
-- It is read as a whole once a second, and what is read has gone by then.
ALTER TABLE "audit_pending" SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 1000000000);
