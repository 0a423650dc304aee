CREATE TABLE "broadcast_counts" (
	"broadcast_id" uuid NOT NULL,
	"status" varchar(50) NOT NULL,
	"count" integer NOT NULL
);
--> statement-breakpoint
DROP INDEX "idx_message_queue_broadcast";--> statement-breakpoint
DROP INDEX "idx_message_queue_open";--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "state" varchar(16) DEFAULT 'running' NOT NULL;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "aborted_reason" text;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "rate_per_second" integer;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "released_until" timestamp with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "abort_at_failure_percent" integer;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "failed_at_once" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "payload_bytes" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "broadcasts" ADD COLUMN "finished_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "message_queue" ADD COLUMN "held" boolean DEFAULT false NOT NULL;--> statement-breakpoint
CREATE INDEX "idx_broadcast_counts_broadcast" ON "broadcast_counts" USING btree ("broadcast_id");--> statement-breakpoint
CREATE INDEX "idx_broadcasts_live" ON "broadcasts" USING btree ("id") WHERE finished_at is null;--> statement-breakpoint
CREATE INDEX "idx_broadcasts_finished_at" ON "broadcasts" USING btree ("finished_at") WHERE finished_at is not null;--> statement-breakpoint
CREATE INDEX "idx_communication_channels_closed" ON "communication_channels" USING btree ("agent_id") WHERE not is_active;--> statement-breakpoint
CREATE INDEX "idx_message_queue_held" ON "message_queue" USING btree ("broadcast_id","sequence") WHERE status = 'pending' and held;--> statement-breakpoint
CREATE INDEX "idx_message_queue_processed_at" ON "message_queue" USING btree ("processed_at") WHERE processed_at is not null;--> statement-breakpoint
CREATE INDEX "idx_message_queue_broadcast" ON "message_queue" USING btree ("broadcast_id","status","sequence") WHERE broadcast_id is not null;--> statement-breakpoint
CREATE INDEX "idx_message_queue_open" ON "message_queue" USING btree ("agent_id","priority" DESC NULLS FIRST,"sequence") WHERE status in ('pending', 'sent');--> statement-breakpoint
INSERT INTO "broadcast_counts" ("broadcast_id", "status", "count")
SELECT broadcast_id, status, count(*) FROM message_queue WHERE broadcast_id IS NOT NULL GROUP BY broadcast_id, status;--> statement-breakpoint
CREATE FUNCTION count_broadcast_messages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO broadcast_counts (broadcast_id, status, count)
  SELECT broadcast_id, status, sum(change) FROM (
    SELECT broadcast_id, status, 1 AS change FROM updated WHERE broadcast_id IS NOT NULL
    UNION ALL
    SELECT broadcast_id, status, -1 FROM outdated WHERE broadcast_id IS NOT NULL
  ) AS changes GROUP BY broadcast_id, status HAVING sum(change) <> 0;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER count_broadcast_messages AFTER UPDATE ON message_queue
  REFERENCING OLD TABLE AS outdated NEW TABLE AS updated
  FOR EACH STATEMENT EXECUTE FUNCTION count_broadcast_messages();--> statement-breakpoint
ALTER TABLE "message_queue" SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.02);--> statement-breakpoint
ALTER TABLE "broadcast_counts" SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
