ALTER TABLE "agent_connections" ADD COLUMN "presence_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "agent_connections" ADD COLUMN "presence_reason" text;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "disconnect_epoch" bigint;--> statement-breakpoint
ALTER TABLE "agents" ADD COLUMN "disconnect_asked_at" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "idx_agent_connections_presence" ON "agent_connections" USING btree ("presence_at","agent_id");--> statement-breakpoint
CREATE INDEX "idx_agents_disconnect_asked_at" ON "agents" USING btree ("disconnect_asked_at") WHERE disconnect_asked_at is not null;