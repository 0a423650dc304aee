CREATE TABLE "agent_pending_keys" (
	"agent_uid" uuid NOT NULL,
	"protocol" varchar(2) NOT NULL,
	"public_key" text NOT NULL,
	"key_fingerprint" varchar(64) NOT NULL,
	"since" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "agent_pending_keys_agent_uid_protocol_pk" PRIMARY KEY("agent_uid","protocol")
);
--> statement-breakpoint
CREATE TABLE "enrollment_tokens" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"token_hash" varchar(64) NOT NULL,
	"org_id" varchar(255) NOT NULL,
	"agent_name" varchar(255),
	"note" text,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	"used_at" timestamp with time zone,
	"used_by" uuid,
	"revoked_at" timestamp with time zone,
	"sequence" bigserial NOT NULL,
	CONSTRAINT "enrollment_tokens_token_hash_unique" UNIQUE("token_hash"),
	CONSTRAINT "enrollment_tokens_sequence_unique" UNIQUE("sequence")
);
--> statement-breakpoint
CREATE TABLE "v1_keys" (
	"key_fingerprint" varchar(64) PRIMARY KEY NOT NULL,
	"seen_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
DROP INDEX "idx_agents_awaiting_approval";--> statement-breakpoint
ALTER TABLE "agent_connections" ADD COLUMN "last_v1_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "agent_connections" ADD COLUMN "last_v2_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "revoked_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "key_protocol" varchar(2) DEFAULT 'v1' NOT NULL;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "successor_key_fingerprint" varchar(64);--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "v2_since" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "auth_nonces" ADD COLUMN "attempt_id" uuid;--> statement-breakpoint
ALTER TABLE "agent_pending_keys" ADD CONSTRAINT "agent_pending_keys_agent_uid_agents_uid_fk" FOREIGN KEY ("agent_uid") REFERENCES "public"."agents"("uid") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "enrollment_tokens" ADD CONSTRAINT "enrollment_tokens_used_by_agents_uid_fk" FOREIGN KEY ("used_by") REFERENCES "public"."agents"("uid") ON DELETE set null ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "idx_enrollment_tokens_org" ON "enrollment_tokens" USING btree ("org_id","sequence");--> statement-breakpoint
CREATE INDEX "idx_enrollment_tokens_used_by" ON "enrollment_tokens" USING btree ("used_by") WHERE used_by is not null;--> statement-breakpoint
CREATE INDEX "idx_agents_pending" ON "agents" USING btree ("org_id") WHERE enrollment = 'pending';--> statement-breakpoint
CREATE INDEX "idx_agents_revoked_at" ON "agents" USING btree ("revoked_at") WHERE revoked_at is not null;--> statement-breakpoint
INSERT INTO "agent_pending_keys" ("agent_uid", "protocol", "public_key", "key_fingerprint", "since")
SELECT "uid", 'v1', "pending_public_key", "pending_key_fingerprint", "updated_at" FROM "agents" WHERE "pending_public_key" IS NOT NULL;--> statement-breakpoint
INSERT INTO "v1_keys" ("key_fingerprint")
SELECT "key_fingerprint" FROM "agents"
UNION SELECT "pending_key_fingerprint" FROM "agents" WHERE "pending_key_fingerprint" IS NOT NULL
UNION SELECT "key_fingerprint" FROM "agent_keys"
UNION SELECT "key_fingerprint" FROM "bootstrap_tokens"
UNION SELECT encode(sha256(decode("public_key", 'base64')), 'hex') FROM "agent_connections";--> statement-breakpoint
UPDATE "agents" SET "revoked_at" = "updated_at" WHERE "enrollment" = 'revoked';
