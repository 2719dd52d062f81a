// The trace explorer: search, sort, filter and links. The index is in memory; blocks of traces are unpacked on demand.
const PAGE = 50; // traces listed at a time
const CACHED = 8; // unpacked blocks in memory

function unescaped(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // not one of ours
  }
}

function explore({ runs, index, blocks, outcomes, total }) {
  const [search, sort, outcome, run, list, more, found, box] = [
    "search", "sort", "outcome", "run", "list", "more", "found", "trace",
  ].map((id) => document.getElementById(id));
  const natural = new Intl.Collator("en", { numeric: true }); // problem 2 comes before problem 10
  const rows = index.problem.map((_, i) => i).sort((a, b) =>
    index.run[a] - index.run[b] || natural.compare(index.problem[a], index.problem[b]) || index.index[a] - index.index[b]);
  const name = (i) => (runs.length > 1 ? `${runs[index.run[i]]}: ` : "") + `${index.problem[i]}/${index.index[i]}`;
  const address = (i) => "#" + [runs[index.run[i]], index.problem[i], index.index[i]].map(encodeURIComponent).join("/");
  const at = new Map(rows.map((i) => [address(i), i]));
  const unpacked = new Map();
  let shown = rows;
  let listed = 0;
  let open = -1;
  let turn = 0; // number of the latest search; older ones stop

  outcomes.forEach((o, i) => {
    if (index.outcome.includes(i)) outcome.append(make("option", { value: i }, o.replace("_", " ")));
  });
  if (run) runs.forEach((label, i) => run.append(make("option", { value: i }, label)));

  async function block(number) {
    if (!unpacked.has(number)) {
      const bytes = Uint8Array.from(atob(blocks[number]), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(number, JSON.parse(await new Response(stream).text()));
      if (unpacked.size > CACHED) unpacked.delete(unpacked.keys().next().value);
    }
    return unpacked.get(number);
  }

  const load = async (i) => (await block(index.block[i]))[index.place[i]];

  function contains(trace, wanted) {
    const texts = [trace.question ?? "", ...trace.episodes.map((e) => e.text), trace.after];
    return texts.some((t) => t.toLowerCase().includes(wanted));
  }

  // the rows that contain a text, in the name of the trace or in its text
  async function matching(candidates, wanted, mine) {
    const hits = new Set(candidates.filter((i) => `${index.problem[i]}/${index.index[i]}`.toLowerCase().includes(wanted)));
    const by = Map.groupBy ? Map.groupBy(candidates, (i) => index.block[i]) : grouped(candidates);
    let done = 0;
    for (const [number, members] of by) {
      if (mine !== turn) return null;
      const traces = await block(number);
      for (const i of members) if (!hits.has(i) && contains(traces[index.place[i]], wanted)) hits.add(i);
      done += members.length;
      found.textContent = `Searching: ${done} of ${plural(candidates.length, "trace")}`;
    }
    return mine === turn ? candidates.filter((i) => hits.has(i)) : null;
  }

  function grouped(candidates) {
    const by = new Map();
    for (const i of candidates) by.set(index.block[i], [...(by.get(index.block[i]) ?? []), i]);
    return by;
  }

  async function find() {
    const mine = ++turn;
    const wanted = search.value.trim().toLowerCase();
    const is = (select, column) => (i) => !select?.value || column[i] === Number(select.value);
    let hits = rows.filter(is(outcome, index.outcome)).filter(is(run, index.run));
    if (wanted) hits = await matching(hits, wanted, mine);
    if (hits === null) return;
    const column = index[sort.value];
    const high = (i) => column[i] ?? -Infinity; // unknown values come last
    if (column) hits.sort((a, b) => high(b) - high(a) || a - b);
    shown = hits;
    listed = 0;
    list.replaceChildren();
    found.textContent = hits.length < rows.length ? `${hits.length} of ${plural(rows.length, "trace")}` : plural(rows.length, "trace");
    extend();
    mark();
    if (open >= 0 && !shown.includes(open)) {
      // the open trace is not among those found
      if (shown.length) return show(shown[0]);
      open = -1;
      box.replaceChildren(make("h3", { id: "trace-name", tabIndex: -1 }, "No trace fits."));
    }
    box.querySelector(":scope > .turn")?.replaceWith(neighbours());
  }

  function extend() {
    for (const i of shown.slice(listed, listed + PAGE)) {
      const word = outcomes[index.outcome[i]];
      const fact = { overthinking: "overthought", regret: "regret", progress: "progress" }[sort.value];
      list.append(
        make(
          "li",
          {},
          make(
            "a",
            { href: address(i) },
            make("bdi", {}, name(i)),
            make("span", { className: `verdict ${word}` }, word.replace("_", " ")),
            make(
              "span",
              { className: "quiet" },
              fact ? `${fact} ${number(index[sort.value][i], sort.value === "progress")}` : plural(index.tokens[i], "token"),
            ),
          ),
        ),
      );
    }
    listed = Math.min(shown.length, listed + PAGE);
    more.hidden = listed === shown.length;
  }

  function mark() {
    [...list.children].forEach((item, k) => {
      if (shown[k] === open) item.firstChild.setAttribute("aria-current", "true");
      else item.firstChild.removeAttribute("aria-current");
    });
  }

  function neighbours() {
    const here = shown.indexOf(open);
    const link = (i, word) => (i === undefined ? [] : [make("a", { href: address(i) }, word)]);
    return make(
      "nav",
      { className: "turn", ariaLabel: "Neighbouring traces" },
      ...link(here > 0 ? shown[here - 1] : undefined, "← Previous"),
      ...link(here >= 0 ? shown[here + 1] : shown[0], "Next →"),
      ...twins().map((i) => make("a", { href: address(i) }, "In ", make("bdi", {}, runs[index.run[i]]))),
    );
  }

  // the same problem and number in the other runs
  function twins() {
    const same = (i) => index.problem[i] === index.problem[open] && index.index[i] === index.index[open];
    return open < 0 || runs.length < 2 ? [] : rows.filter((i) => i !== open && same(i));
  }

  // j and k, or the arrows, go to the next and the previous trace
  addEventListener("keydown", (event) => {
    const step = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const typing = event.target.closest?.("input, select, textarea, .chart, .scroll");
    if (!step || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const i = shown[shown.indexOf(open) + step];
    if (i !== undefined) location.hash = address(i);
  });

  // what a page opens on: the trace that lost most by thinking on
  function telling() {
    const lost = (i) => index.overthinking[i] ?? -Infinity;
    return shown.reduce((best, i) => (lost(i) > lost(best) ? i : best), shown[0]);
  }

  // shows a trace, and scrolls to it, or to one of its episodes, if the user asked for it
  async function show(i, { episode = null, asked = false } = {}) {
    if (i !== open) {
      open = i;
      mark();
      let parts;
      try {
        parts = traceElements(await load(i), address(i), name(i));
      } catch (error) {
        parts = [make("h3", { id: "trace-name", tabIndex: -1 }, `${name(i)} cannot be unpacked: ${error.message}`)];
      }
      if (open !== i) return;
      box.replaceChildren(neighbours(), ...parts);
    }
    const target = document.getElementById(episode === null ? "trace-name" : `episode-${episode}`);
    if (!asked || !target) return;
    target.focus({ preventScroll: true });
    const { top } = target.getBoundingClientRect();
    if (episode !== null || top < 0 || top > innerHeight / 2) target.scrollIntoView({ block: "start" });
    const frame = list.parentElement;
    const item = list.querySelector("[aria-current]");
    const hidden = item && (item.offsetTop < frame.scrollTop || item.offsetTop > frame.scrollTop + frame.clientHeight - 60);
    if (hidden) frame.scrollTop = item.offsetTop - frame.clientHeight / 3;
  }

  // `#run/problem/index` is a trace, `#run/problem/index/3` an episode of it; other addresses are places on the page
  function follow(asked) {
    const parts = location.hash.slice(1).split("/").map(unescaped);
    if (parts.length < 3) return false;
    const i = at.get("#" + parts.slice(0, 3).map(encodeURIComponent).join("/"));
    if (i === undefined) {
      open = -1;
      mark();
      const note = `The address names a trace that is not among the ${rows.length} of ${total} on this page.`;
      box.replaceChildren(make("h3", { id: "trace-name", tabIndex: -1 }, note));
    } else {
      show(i, { episode: parts[3] ?? null, asked });
    }
    return true;
  }

  let pause;
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(find, 200);
  });
  for (const select of [sort, outcome, run]) select?.addEventListener("change", find);
  more.addEventListener("click", () => {
    const first = listed;
    extend();
    mark();
    list.children[first]?.firstChild.focus();
  });
  addEventListener("hashchange", () => follow(true));
  find().then(() => {
    if (!follow(true) && shown.length) show(telling());
  });
}

if (data.explorer?.shown) explore(data.explorer);
