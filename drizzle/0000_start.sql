CREATE TABLE "agent_connections" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"agent_id" varchar(255) NOT NULL,
	"public_key" text NOT NULL,
	"session_token" varchar(255) NOT NULL,
	"connected_at" timestamp with time zone DEFAULT now() NOT NULL,
	"last_seen" timestamp with time zone DEFAULT now() NOT NULL,
	"is_active" boolean DEFAULT true NOT NULL,
	"metadata" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	"epoch" bigint DEFAULT 0 NOT NULL,
	"instance_id" varchar(255) NOT NULL,
	"protocol" varchar(2) NOT NULL,
	"remote_address" varchar(64),
	"session_expires_at" timestamp with time zone NOT NULL,
	CONSTRAINT "agent_connections_agent_id_unique" UNIQUE("agent_id")
);
--> statement-breakpoint
CREATE TABLE "agent_keys" (
	"agent_uid" uuid NOT NULL,
	"key_fingerprint" varchar(64) NOT NULL,
	"protocol" varchar(2) NOT NULL,
	"approved_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "agent_keys_agent_uid_key_fingerprint_pk" PRIMARY KEY("agent_uid","key_fingerprint")
);
--> statement-breakpoint
CREATE TABLE "agents" (
	"uid" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"org_id" varchar(255) NOT NULL,
	"name" varchar(255) NOT NULL,
	"host_id" varchar(255),
	"hostname" varchar(255),
	"version" varchar(255),
	"machine_id_hash" varchar(255),
	"platform" jsonb,
	"network" jsonb,
	"capabilities" jsonb,
	"labels" text[] DEFAULT '{}' NOT NULL,
	"note" text,
	"enrollment" varchar(16) NOT NULL,
	"revoked_reason" text,
	"public_key" text NOT NULL,
	"key_fingerprint" varchar(64) NOT NULL,
	"pending_public_key" text,
	"pending_key_fingerprint" varchar(64),
	"key_reset" boolean DEFAULT false NOT NULL,
	"dialect" varchar(16),
	"epoch" bigint DEFAULT 0 NOT NULL,
	"registered_at" timestamp with time zone,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "agents_org_id_name" UNIQUE("org_id","name")
);
--> statement-breakpoint
CREATE TABLE "auth_nonces" (
	"nonce" varchar(64) PRIMARY KEY NOT NULL,
	"expires_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "bootstrap_tokens" (
	"token_hash" varchar(64) PRIMARY KEY NOT NULL,
	"agent_uid" uuid NOT NULL,
	"key_fingerprint" varchar(64) NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "broadcasts" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"org_id" varchar(255),
	"channel" varchar(255) NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"idempotency_key" varchar(255),
	"request_hash" varchar(64)
);
--> statement-breakpoint
CREATE TABLE "communication_channels" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"agent_id" varchar(255) NOT NULL,
	"channel_name" varchar(255) NOT NULL,
	"channel_type" varchar(50) NOT NULL,
	"is_active" boolean DEFAULT true NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "communication_channels_agent_id_channel_name" UNIQUE("agent_id","channel_name")
);
--> statement-breakpoint
CREATE TABLE "event_stream" (
	"id" smallint PRIMARY KEY NOT NULL,
	"position" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "events" (
	"position" bigint PRIMARY KEY NOT NULL,
	"kind" varchar(16) NOT NULL,
	"org_id" varchar(255) NOT NULL,
	"agent_uid" uuid NOT NULL,
	"agent_name" varchar(255) NOT NULL,
	"message_id" varchar(255) NOT NULL,
	"occurred_at" timestamp with time zone NOT NULL,
	"received_at" timestamp with time zone NOT NULL,
	"trusted" boolean NOT NULL,
	"sealed" boolean NOT NULL,
	"severity" smallint NOT NULL,
	"reply_to" uuid,
	"payload" json
);
--> statement-breakpoint
CREATE TABLE "instances" (
	"id" varchar(255) PRIMARY KEY NOT NULL,
	"version" varchar(64) NOT NULL,
	"started_at" timestamp with time zone DEFAULT now() NOT NULL,
	"lease_until" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "message_queue" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"agent_id" varchar(255) NOT NULL,
	"channel" varchar(255) NOT NULL,
	"message_type" varchar(50) NOT NULL,
	"payload" text NOT NULL,
	"encrypted_payload" text NOT NULL,
	"nonce" text NOT NULL,
	"signature" text NOT NULL,
	"status" varchar(50) DEFAULT 'pending' NOT NULL,
	"retry_count" integer DEFAULT 0 NOT NULL,
	"max_retries" integer DEFAULT 3 NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"processed_at" timestamp with time zone,
	"expires_at" timestamp with time zone DEFAULT now() + interval '1 hour' NOT NULL,
	"sequence" bigserial NOT NULL,
	"org_id" varchar(255) NOT NULL,
	"agent_name" varchar(255) NOT NULL,
	"priority" smallint NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"epoch" bigint,
	"not_before" timestamp with time zone,
	"sent_at" timestamp with time zone,
	"delivered_at" timestamp with time zone,
	"failure" text,
	"broadcast_id" uuid,
	"idempotency_key" varchar(255),
	"request_hash" varchar(64)
);
--> statement-breakpoint
CREATE TABLE "recent_event_ids" (
	"key" uuid PRIMARY KEY NOT NULL,
	"body_hash" uuid NOT NULL,
	"received_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "registrations" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"org_id" varchar(255) NOT NULL,
	"host_id" varchar(255) NOT NULL,
	"public_key" text NOT NULL,
	"nonce" text NOT NULL,
	"server_time" varchar(32) NOT NULL,
	"details" jsonb NOT NULL,
	"expires_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "agent_keys" ADD CONSTRAINT "agent_keys_agent_uid_agents_uid_fk" FOREIGN KEY ("agent_uid") REFERENCES "public"."agents"("uid") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "bootstrap_tokens" ADD CONSTRAINT "bootstrap_tokens_agent_uid_agents_uid_fk" FOREIGN KEY ("agent_uid") REFERENCES "public"."agents"("uid") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "idx_agent_connections_agent_id" ON "agent_connections" USING btree ("agent_id");--> statement-breakpoint
CREATE INDEX "idx_agent_connections_active" ON "agent_connections" USING btree ("is_active");--> statement-breakpoint
CREATE INDEX "idx_agent_connections_instance" ON "agent_connections" USING btree ("instance_id") WHERE is_active;--> statement-breakpoint
CREATE INDEX "idx_agents_name" ON "agents" USING btree ("name","uid");--> statement-breakpoint
CREATE INDEX "idx_agents_awaiting_approval" ON "agents" USING btree ("org_id") WHERE enrollment = 'pending' or pending_key_fingerprint is not null;--> statement-breakpoint
CREATE INDEX "idx_agents_labels" ON "agents" USING gin ("labels");--> statement-breakpoint
CREATE INDEX "idx_auth_nonces_expires_at" ON "auth_nonces" USING btree ("expires_at");--> statement-breakpoint
CREATE UNIQUE INDEX "bootstrap_tokens_agent_key" ON "bootstrap_tokens" USING btree ("agent_uid","key_fingerprint");--> statement-breakpoint
CREATE UNIQUE INDEX "broadcasts_idempotency" ON "broadcasts" USING btree (coalesce(org_id, ''),"idempotency_key") WHERE idempotency_key is not null;--> statement-breakpoint
CREATE INDEX "idx_communication_channels_agent_id" ON "communication_channels" USING btree ("agent_id");--> statement-breakpoint
CREATE INDEX "idx_communication_channels_type" ON "communication_channels" USING btree ("channel_type");--> statement-breakpoint
CREATE INDEX "idx_events_agent" ON "events" USING btree ("agent_uid","position");--> statement-breakpoint
CREATE INDEX "idx_events_kind" ON "events" USING btree ("kind","position");--> statement-breakpoint
CREATE INDEX "idx_events_reply_to" ON "events" USING btree ("reply_to","position") WHERE reply_to is not null;--> statement-breakpoint
CREATE INDEX "idx_message_queue_agent_id" ON "message_queue" USING btree ("agent_id");--> statement-breakpoint
CREATE INDEX "idx_message_queue_status" ON "message_queue" USING btree ("status");--> statement-breakpoint
CREATE INDEX "idx_message_queue_created_at" ON "message_queue" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "idx_message_queue_agent_sequence" ON "message_queue" USING btree ("agent_id","sequence");--> statement-breakpoint
CREATE INDEX "idx_message_queue_broadcast" ON "message_queue" USING btree ("broadcast_id","sequence") WHERE broadcast_id is not null;--> statement-breakpoint
CREATE INDEX "idx_message_queue_open" ON "message_queue" USING btree ("agent_id","priority" DESC NULLS LAST,"sequence") WHERE status in ('pending', 'sent');--> statement-breakpoint
CREATE INDEX "idx_message_queue_open_expiry" ON "message_queue" USING btree ("expires_at") WHERE status in ('pending', 'sent');--> statement-breakpoint
CREATE UNIQUE INDEX "message_queue_idempotency" ON "message_queue" USING btree ("org_id","idempotency_key") WHERE idempotency_key is not null;--> statement-breakpoint
CREATE INDEX "idx_recent_event_ids_received_at" ON "recent_event_ids" USING brin ("received_at");--> statement-breakpoint
CREATE INDEX "idx_registrations_expires_at" ON "registrations" USING btree ("expires_at");--> statement-breakpoint
INSERT INTO "event_stream" ("id", "position") VALUES (1, 0);
