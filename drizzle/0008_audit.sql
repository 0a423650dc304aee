CREATE TABLE "audit_chains" (
	"org_id" varchar(255) PRIMARY KEY NOT NULL,
	"number" bigint DEFAULT 0 NOT NULL,
	"hash" varchar(64) DEFAULT '0000000000000000000000000000000000000000000000000000000000000000' NOT NULL,
	"anchor_number" bigint DEFAULT 0 NOT NULL,
	"anchor_hash" varchar(64) DEFAULT '0000000000000000000000000000000000000000000000000000000000000000' NOT NULL
);
--> statement-breakpoint
CREATE TABLE "audit_entries" (
	"id" bigserial PRIMARY KEY NOT NULL,
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
	"details" json NOT NULL,
	"number" bigint,
	"hash" varchar(64)
);
--> statement-breakpoint
CREATE INDEX "idx_audit_entries_org" ON "audit_entries" USING btree ("org_id","id");--> statement-breakpoint
CREATE INDEX "idx_audit_entries_subject" ON "audit_entries" USING btree ("subject_id","id");--> statement-breakpoint
CREATE INDEX "idx_audit_entries_unsealed" ON "audit_entries" USING btree ("id") WHERE number is null;--> statement-breakpoint
CREATE UNIQUE INDEX "audit_entries_chain" ON "audit_entries" USING btree (coalesce(org_id, ''),"number") WHERE number is not null;--> statement-breakpoint
CREATE FUNCTION keep_audit_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF old.number IS NULL AND new.number IS NOT NULL AND new.hash IS NOT NULL AND
      (new.id, new.org_id, new.at, new.actor_kind, new.actor_id, new.actor_label, new.address, new.request_id, new.action,
        new.subject_type, new.subject_id, new.subject_name, new.outcome, new.details::text)
      IS NOT DISTINCT FROM
      (old.id, old.org_id, old.at, old.actor_kind, old.actor_id, old.actor_label, old.address, old.request_id, old.action,
        old.subject_type, old.subject_id, old.subject_name, old.outcome, old.details::text) THEN RETURN new;
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    IF EXISTS (SELECT FROM audit_chains chain
      WHERE chain.org_id = coalesce(old.org_id, '') AND old.number <= chain.anchor_number) THEN RETURN old;
    END IF;
  END IF;
  RAISE EXCEPTION 'audit_entries is append-only' USING ERRCODE = 'restrict_violation';
END $$;--> statement-breakpoint
CREATE TRIGGER keep_audit_entries BEFORE UPDATE OR DELETE ON audit_entries
  FOR EACH ROW EXECUTE FUNCTION keep_audit_entries();--> statement-breakpoint
CREATE TRIGGER keep_audit_entries_whole BEFORE TRUNCATE ON audit_entries
  FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_entries();--> statement-breakpoint
ALTER TABLE "audit_entries" SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05);
