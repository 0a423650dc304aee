ALTER TABLE "agents" DROP COLUMN "pending_public_key";--> statement-breakpoint
ALTER TABLE "agents" DROP COLUMN "pending_key_fingerprint";