-- What is about an agent says itself whose it is: row-level security looked at an agent for each row, or at all of them.
-- The name is one that no statement of an earlier release knows, so that none finds it where it meant another table's.
CREATE FUNCTION organisation_of_agent(agent text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT org_id FROM agents
  WHERE uid = CASE WHEN agent ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN agent::uuid END
$$;--> statement-breakpoint
ALTER TABLE "agent_connections" ADD COLUMN "agent_org_id" varchar(255);--> statement-breakpoint
ALTER TABLE "agent_keys" ADD COLUMN "agent_org_id" varchar(255);--> statement-breakpoint
ALTER TABLE "agent_pending_keys" ADD COLUMN "agent_org_id" varchar(255);--> statement-breakpoint
ALTER TABLE "bootstrap_tokens" ADD COLUMN "agent_org_id" varchar(255);--> statement-breakpoint
ALTER TABLE "communication_channels" ADD COLUMN "agent_org_id" varchar(255);--> statement-breakpoint
-- Written anew in place of updated: a fraction of the time for the sixteen channels of each agent, and no dead rows.
ALTER TABLE "agent_connections" ALTER COLUMN "agent_org_id" TYPE varchar(255) USING organisation_of_agent(agent_id);--> statement-breakpoint
ALTER TABLE "agent_keys" ALTER COLUMN "agent_org_id" TYPE varchar(255) USING organisation_of_agent(agent_uid::text);--> statement-breakpoint
ALTER TABLE "agent_pending_keys" ALTER COLUMN "agent_org_id" TYPE varchar(255) USING organisation_of_agent(agent_uid::text);--> statement-breakpoint
ALTER TABLE "bootstrap_tokens" ALTER COLUMN "agent_org_id" TYPE varchar(255) USING organisation_of_agent(agent_uid::text);--> statement-breakpoint
ALTER TABLE "communication_channels" ALTER COLUMN "agent_org_id" TYPE varchar(255) USING organisation_of_agent(agent_id);--> statement-breakpoint
ALTER POLICY "organisation" ON "agent_connections" USING (agent_org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER POLICY "organisation" ON "agent_keys" USING (agent_org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER POLICY "organisation" ON "agent_pending_keys" USING (agent_org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER POLICY "organisation" ON "bootstrap_tokens" USING (agent_org_id = current_setting('aegis.org_id'));--> statement-breakpoint
ALTER POLICY "organisation" ON "communication_channels" USING (agent_org_id = current_setting('aegis.org_id'));--> statement-breakpoint
-- For gateways of an earlier release beside, which do not give it.
CREATE FUNCTION give_organisation_of_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.agent_org_id := organisation_of_agent(to_jsonb(NEW) ->> TG_ARGV[0]);
  RETURN NEW;
END $$;--> statement-breakpoint
CREATE TRIGGER "organisation" BEFORE INSERT ON "agent_connections"
  FOR EACH ROW WHEN (NEW.agent_org_id IS NULL) EXECUTE FUNCTION give_organisation_of_agent('agent_id');--> statement-breakpoint
CREATE TRIGGER "organisation" BEFORE INSERT ON "agent_keys"
  FOR EACH ROW WHEN (NEW.agent_org_id IS NULL) EXECUTE FUNCTION give_organisation_of_agent('agent_uid');--> statement-breakpoint
CREATE TRIGGER "organisation" BEFORE INSERT ON "agent_pending_keys"
  FOR EACH ROW WHEN (NEW.agent_org_id IS NULL) EXECUTE FUNCTION give_organisation_of_agent('agent_uid');--> statement-breakpoint
CREATE TRIGGER "organisation" BEFORE INSERT ON "bootstrap_tokens"
  FOR EACH ROW WHEN (NEW.agent_org_id IS NULL) EXECUTE FUNCTION give_organisation_of_agent('agent_uid');--> statement-breakpoint
CREATE TRIGGER "organisation" BEFORE INSERT ON "communication_channels"
  FOR EACH ROW WHEN (NEW.agent_org_id IS NULL) EXECUTE FUNCTION give_organisation_of_agent('agent_id');--> statement-breakpoint
-- An agent that says at its registration where it belongs moves there.
CREATE FUNCTION move_rows_of_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE agent_connections SET agent_org_id = NEW.org_id WHERE agent_id = NEW.uid::text;
  UPDATE agent_keys SET agent_org_id = NEW.org_id WHERE agent_uid = NEW.uid;
  UPDATE agent_pending_keys SET agent_org_id = NEW.org_id WHERE agent_uid = NEW.uid;
  UPDATE bootstrap_tokens SET agent_org_id = NEW.org_id WHERE agent_uid = NEW.uid;
  UPDATE communication_channels SET agent_org_id = NEW.org_id WHERE agent_id = NEW.uid::text;
  RETURN NULL;
END $$;--> statement-breakpoint
CREATE TRIGGER "organisation" AFTER UPDATE OF "org_id" ON "agents"
  FOR EACH ROW WHEN (OLD.org_id IS DISTINCT FROM NEW.org_id) EXECUTE FUNCTION move_rows_of_agent();
