// A session is a name in a cookie: enough for a test of who sees what.
export async function POST(request) {
  const form = await request.formData();
  return new Response(null, {
    status: 303,
    headers: { Location: "/notes", "Set-Cookie": `session=${form.get("name")}; Path=/; HttpOnly; Secure; SameSite=Lax` },
  });
}

export async function DELETE() {
  return new Response(null, { status: 204, headers: { "Set-Cookie": "session=; Path=/; Max-Age=0" } });
}
