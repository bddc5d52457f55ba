-- Tokens that open SQL over history: `sql` its tenant's rows, `operator` every tenant's.
ALTER TABLE api_tokens DROP CONSTRAINT api_tokens_scopes_check;
ALTER TABLE api_tokens ADD CONSTRAINT api_tokens_scopes_check
    CHECK (scopes <@ ARRAY['command', 'read', 'admin', 'sql', 'operator']);

-- What SCRAM needs of such a token (RFC 5802): who can read it can log in as it, so no one but weir may.
ALTER TABLE api_tokens ADD COLUMN scram_salt bytea, ADD COLUMN scram_salted_password bytea;
