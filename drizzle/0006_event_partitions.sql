CREATE TABLE "dropped_events" (
	"kind" varchar(16) PRIMARY KEY NOT NULL,
	"through_position" bigint NOT NULL
);
--> statement-breakpoint
CREATE TABLE "event_hours" (
	"hour" integer PRIMARY KEY NOT NULL,
	"first_position" bigint NOT NULL,
	"began_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "event_stream" ADD COLUMN "hour" integer DEFAULT 0 NOT NULL;
--> statement-breakpoint
DROP INDEX "idx_events_agent";
--> statement-breakpoint
DROP INDEX "idx_events_reply_to";
--> statement-breakpoint
ALTER TABLE "events" RENAME TO "events_whole";
--> statement-breakpoint
ALTER TABLE "recent_event_ids" RENAME TO "recent_event_ids_whole";
--> statement-breakpoint
-- Partitioned by hand from here on: drizzle has no word for it.
CREATE TABLE "events" (
	"position" bigint NOT NULL,
	"kind" varchar(16) NOT NULL,
	"hour" integer NOT NULL,
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
	"payload" json,
	CONSTRAINT "events_position_kind_hour_pk" PRIMARY KEY("position","kind","hour")
) PARTITION BY LIST ("kind");
--> statement-breakpoint
CREATE INDEX "idx_events_agent" ON "events" USING btree ("agent_uid","position");
--> statement-breakpoint
CREATE INDEX "idx_events_reply_to" ON "events" USING btree ("reply_to","position") WHERE reply_to is not null;
--> statement-breakpoint
CREATE TABLE "recent_event_ids" (
	"key" uuid NOT NULL,
	"hour" integer NOT NULL,
	"body_hash" uuid NOT NULL,
	CONSTRAINT "recent_event_ids_key_hour_pk" PRIMARY KEY("key","hour")
) PARTITION BY RANGE ("hour");
--> statement-breakpoint
DO $$
DECLARE
	kind text;
	now_hour integer := floor(extract(epoch FROM now()) / 3600);
	day_hour integer := now_hour - now_hour % 24;
	is_used boolean := EXISTS (SELECT FROM events_whole) OR EXISTS (SELECT FROM recent_event_ids_whole);
BEGIN
	FOREACH kind IN ARRAY ARRAY['policies', 'anomalies', 'threats', 'processes', 'dependencies', 'tests', 'rollbacks', 'heartbeat', 'status', 'logs'] LOOP
		EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES IN (%L) PARTITION BY RANGE (hour)', 'events_' || kind, kind);
		IF is_used THEN
			EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
				format('events_%s_%s_%s', kind, now_hour, now_hour + 1), 'events_' || kind, now_hour, now_hour + 1);
		END IF;
	END LOOP;
	-- What was stored before counts as of this hour: its time to stay begins anew. The gateway makes all later partitions.
	IF is_used THEN
		EXECUTE format('CREATE TABLE %I PARTITION OF recent_event_ids FOR VALUES FROM (%s) TO (%s)',
			format('recent_event_ids_%s_%s', day_hour, day_hour + 24), day_hour, day_hour + 24);
		INSERT INTO events (position, kind, hour, org_id, agent_uid, agent_name, message_id, occurred_at, received_at, trusted, sealed,
			severity, reply_to, payload)
		SELECT position, events_whole.kind, now_hour, org_id, agent_uid, agent_name, message_id, occurred_at, received_at, trusted, sealed,
			severity, reply_to, payload FROM events_whole;
		INSERT INTO recent_event_ids (key, hour, body_hash)
		SELECT key, day_hour, body_hash FROM recent_event_ids_whole WHERE received_at > now() - interval '24 hours';
		INSERT INTO event_hours (hour, first_position, began_at) VALUES (now_hour, 1, now());
		UPDATE event_stream SET hour = now_hour;
	END IF;
END $$;
--> statement-breakpoint
DROP TABLE "events_whole";
--> statement-breakpoint
DROP TABLE "recent_event_ids_whole";
