DROP INDEX "idx_message_queue_held";--> statement-breakpoint
DROP INDEX "idx_message_queue_open";--> statement-breakpoint
DROP INDEX "idx_message_queue_open_expiry";--> statement-breakpoint
CREATE INDEX "idx_message_queue_held" ON "message_queue" USING btree ("broadcast_id","sequence") WHERE processed_at is null and held;--> statement-breakpoint
CREATE INDEX "idx_message_queue_open" ON "message_queue" USING btree ("agent_id","priority" DESC NULLS FIRST,"sequence") WHERE processed_at is null;--> statement-breakpoint
CREATE INDEX "idx_message_queue_open_expiry" ON "message_queue" USING btree ("expires_at") WHERE processed_at is null;