// The page's charts and its trace explorer. Text of models and problems becomes text nodes only, never markup.
const data = JSON.parse(document.getElementById("data").textContent);

for (const [id, spec] of Object.entries(data.charts)) {
  // `ast` makes Vega interpret its expressions instead of compiling them, which the page's policy forbids
  vegaEmbed(`#${id}`, spec, {
    ast: true,
    renderer: "svg",
    actions: { export: true, source: false, compiled: false, editor: false },
    config: { background: "transparent", font: "system-ui, sans-serif" },
  });
}

const UNKNOWN = "–";

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children); // strings become text nodes
  return element;
}

function number(x, signed = false) {
  return x === null ? UNKNOWN : (signed && x >= 0 ? "+" : "") + x.toFixed(2).replace("-", "−");
}

function plural(n, word, words = `${word}s`) {
  return `${n} ${n === 1 ? word : words}`;
}

// colours an element by progress: from red at -1 over none at 0 to blue at +1
function colour(element, progress) {
  element.classList.add("progress", progress === null ? "unknown" : progress < 0 ? "down" : "up");
  element.style.setProperty("--amount", `${Math.round(100 * Math.min(1, Math.abs(progress ?? 0)))}%`);
  return element;
}

function boundary(b, j) {
  const interval = b.n ? `; 95% ${number(b.ci95[0])} to ${number(b.ci95[1])}` : "";
  const details = make(
    "details",
    {},
    make(
      "summary",
      {},
      make("span", { className: "where" }, `boundary ${j}`),
      make("b", {}, `value ${number(b.value)} ± ${number(b.stderr)}`),
      make("span", { className: "quiet" }, `n = ${b.n}${interval}`),
      make("span", { className: "quiet" }, b.budget === null ? "no branches" : `budget ${Math.round(b.budget)} tokens`),
    ),
  );
  const list = make("ol", { start: 0 });
  for (const { text, verdict } of b.branches) {
    const mark = { right: "✓", wrong: "✗" }[verdict] ?? "?";
    list.append(
      make("li", {}, make("span", { className: `verdict ${verdict}` }, `${mark} ${verdict}`), make("code", {}, text)),
    );
  }
  details.append(b.branches.length ? list : make("p", { className: "quiet" }, "No branches were drawn here."));
  return make("div", { className: "boundary" }, details);
}

function episode(e, j, before, after) {
  const head = make(
    "header",
    {},
    make("h4", {}, `Episode ${j}`),
    make("b", {}, `progress ${number(e.progress, true)} ± ${number(e.stderr)}`),
    make("span", { className: "quiet" }, `value ${number(before.value)} → ${number(after.value)}`),
    make("span", { className: "quiet" }, `${plural(e.stop - e.start, "token")} (${e.start} to ${e.stop})`),
  );
  return colour(make("article", { id: `episode-${j}` }, head, make("pre", {}, e.text.replace(/^\n+|\n+$/g, ""))), e.progress);
}

function overview(trace) {
  const strip = make("nav", { className: "strip", ariaLabel: "Episodes, as wide as they are long" });
  trace.episodes.forEach((e, j) => {
    const link = make("a", { href: `#episode-${j}`, title: `episode ${j}: progress ${number(e.progress, true)}` });
    link.append(number(e.progress, true));
    link.style.flexGrow = e.stop - e.start;
    strip.append(colour(link, e.progress));
  });
  return strip;
}

function show(trace) {
  const outcome = trace.outcome.replace("_", " ");
  const box = document.getElementById("trace");
  const facts = [
    plural(trace.tokens, "token"),
    `${trace.thinking} of thinking`,
    plural(trace.episodes.length, "episode"),
  ].join(" · ");
  box.replaceChildren(
    make(
      "h3",
      {},
      `${trace.problem}/${trace.index} `,
      make("span", { className: `verdict ${trace.outcome}` }, outcome),
      make("span", { className: "quiet" }, facts),
    ),
  );
  if (trace.question !== null) {
    box.append(
      make("div", { className: "question" }, make("h4", {}, "Problem"), make("pre", {}, trace.question)),
      make("p", { className: "quiet" }, "Reference answer: ", make("code", {}, trace.reference)),
    );
  }
  if (trace.episodes.length > 1) box.append(overview(trace));
  trace.boundaries.forEach((b, j) => {
    box.append(boundary(b, j));
    const e = trace.episodes[j];
    if (e) box.append(episode(e, j, b, trace.boundaries[j + 1]));
  });
  const answer = trace.after
    ? make("pre", {}, trace.after.trim())
    : make("p", { className: "quiet" }, "The trace ends within its thinking: it has no answer.");
  const head = make("header", {}, make("h4", {}, "After the thinking"));
  head.append(make("span", { className: `verdict ${trace.outcome}` }, outcome));
  if (trace.answer !== null) head.append(make("span", { className: "quiet" }, "answer: ", make("code", {}, trace.answer)));
  box.append(make("article", { className: "answer" }, head, answer));
}

function explore(traces) {
  const [problem, index, previous, next] = ["problem", "index", "previous", "next"].map((id) =>
    document.getElementById(id),
  );
  const first = new Map();
  traces.forEach((trace, i) => {
    if (!first.has(trace.problem)) {
      first.set(trace.problem, i);
      problem.append(make("option", { value: i }, trace.problem));
    }
  });
  const go = (i) => {
    problem.value = first.get(traces[i].problem);
    index.replaceChildren(
      ...traces.flatMap((trace, k) =>
        trace.problem === traces[i].problem
          ? [make("option", { value: k }, `${trace.index} (${trace.outcome.replace("_", " ")})`)]
          : [],
      ),
    );
    index.value = i;
    previous.disabled = i === 0;
    next.disabled = i === traces.length - 1;
    show(traces[i]);
  };
  problem.addEventListener("change", () => go(Number(problem.value)));
  index.addEventListener("change", () => go(Number(index.value)));
  previous.addEventListener("click", () => go(Number(index.value) - 1));
  next.addEventListener("click", () => go(Number(index.value) + 1));
  go(0);
}

if (data.traces?.length) explore(data.traces);
