// The driver `pg` of npm against SQL over history; prints what it saw as JSON.
const { Client } = require("pg");

(async () => {
  const url = new URL(process.argv[2]);
  const client = new Client({
    host: url.hostname, port: url.port, user: url.username, password: url.password, database: "history",
    // The certificate is signed by no authority: the password is bound to it instead.
    ssl: { rejectUnauthorized: false }, enableChannelBinding: true,
  });
  await client.connect();
  const events = await client.query("SELECT count(*) AS n FROM events");
  const one = await client.query({ name: "by-type", text: "SELECT count(*) AS n FROM events WHERE event_type = $1", values: ["UserRegistered"] });
  const row = await client.query('SELECT score, passed, timestamp FROM assessment_completed ORDER BY "offset" LIMIT 1');
  const types = row.fields.map((field) => field.dataTypeID);
  let code;
  try { await client.query("DELETE FROM events"); } catch (error) { code = error.code; }
  await client.end();
  console.log(JSON.stringify({ events: +events.rows[0].n, prepared: +one.rows[0].n, types, code }));
})().catch((error) => { console.error(error); process.exit(1); });
