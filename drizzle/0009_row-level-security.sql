-- Whoever is not the owner sees and changes the rows of one organisation alone: the one that `aegis.org_id` names (docs/ACCESS.md).
-- Where it names none, current_setting fails, and so does the statement.
ALTER TABLE "agents" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "agents" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "events" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "events" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "message_queue" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "message_queue" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "broadcasts" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "broadcasts" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "enrollment_tokens" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "enrollment_tokens" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "api_keys" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "api_keys" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "audit_entries" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "audit_entries" USING (org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER TABLE "agent_connections" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "agent_connections" USING (EXISTS (SELECT FROM agents WHERE uid = agent_id::uuid));--> statement-breakpoint
ALTER TABLE "communication_channels" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "communication_channels" USING (EXISTS (SELECT FROM agents WHERE uid = agent_id::uuid));--> statement-breakpoint
ALTER TABLE "agent_keys" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "agent_keys" USING (EXISTS (SELECT FROM agents WHERE uid = agent_uid));--> statement-breakpoint
ALTER TABLE "agent_pending_keys" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "agent_pending_keys" USING (EXISTS (SELECT FROM agents WHERE uid = agent_uid));--> statement-breakpoint
ALTER TABLE "bootstrap_tokens" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "bootstrap_tokens" USING (EXISTS (SELECT FROM agents WHERE uid = agent_uid));--> statement-breakpoint
ALTER TABLE "broadcast_counts" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
CREATE POLICY "organisation" ON "broadcast_counts" FOR SELECT USING (EXISTS (SELECT FROM broadcasts WHERE id = broadcast_id));--> statement-breakpoint
-- The statement that makes a broadcast does not see it yet.
CREATE POLICY "made" ON "broadcast_counts" FOR INSERT WITH CHECK (true);--> statement-breakpoint
-- Everyone who has no business here: no policy, no rows.
ALTER TABLE "registrations" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
ALTER TABLE "audit_chains" ENABLE ROW LEVEL SECURITY;--> statement-breakpoint
-- A message of one organisation may belong to a broadcast of all, whose counts are nobody's but the owner's.
ALTER FUNCTION count_broadcast_messages() SECURITY DEFINER;--> statement-breakpoint
DO $$ BEGIN
  EXECUTE format('ALTER FUNCTION count_broadcast_messages() SET search_path = %I, pg_temp', current_schema());
END $$;
