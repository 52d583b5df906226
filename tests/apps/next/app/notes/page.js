import { cookies } from "next/headers";
import { revalidatePath } from "next/cache";

// Of each name, in this process.
const notes = (globalThis.notes ??= new Map());

async function add(form) {
  "use server";
  const name = (await cookies()).get("session")?.value;
  if (!name) return;
  notes.set(name, [...(notes.get(name) ?? []), form.get("note")]);
  revalidatePath("/notes");
}

export default async function Notes() {
  const name = (await cookies()).get("session")?.value;
  if (!name) {
    return <form action="/api/session" method="post"><input id="name" name="name" /><button id="enter">enter</button></form>;
  }
  return (
    <main>
      <h1 id="who">{name}</h1>
      <ul>{(notes.get(name) ?? []).map((note) => <li key={note}>{note}</li>)}</ul>
      <form action={add}><input id="note" name="note" /><button id="add">add</button></form>
    </main>
  );
}
