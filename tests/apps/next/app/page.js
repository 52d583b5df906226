// A page for everyone, built again after two seconds at the earliest.
export const revalidate = 2;

export default function Front() {
  return <main><h1>Notes</h1><p id="built">{Date.now()}</p><a id="notes" href="/notes">mine</a></main>;
}
