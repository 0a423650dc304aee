ALTER TABLE "message_queue" ADD COLUMN "revision" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "message_queue" ADD COLUMN "history" jsonb DEFAULT '[]'::jsonb NOT NULL;--> statement-breakpoint
CREATE FUNCTION "record_message_transition"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.revision := OLD.revision + 1;
	-- Bounded: a message that is released again and again must not grow.
	NEW.history := CASE WHEN jsonb_array_length(OLD.history) >= 32 THEN OLD.history - 0 ELSE OLD.history END
		|| jsonb_build_array(jsonb_build_array(
			NEW.revision, NEW.status, floor(extract(epoch FROM now()) * 1000)::bigint, NEW.attempts, NEW.failure));
	RETURN NEW;
END $$;--> statement-breakpoint
CREATE TRIGGER "message_queue_transition" BEFORE UPDATE OF "status" ON "message_queue"
	FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION "record_message_transition"();
