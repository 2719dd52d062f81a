// The page's data and its charts. Text of models and problems becomes text nodes only, never markup.
const data = JSON.parse(document.getElementById("data").textContent);

const dark = matchMedia("(prefers-color-scheme: dark)");

function draw() {
  for (const [name, spec] of Object.entries(data.charts)) {
    // `ast` makes Vega interpret its expressions instead of compiling them, which the page's policy forbids
    vegaEmbed(`#chart-${name}`, spec, {
      ast: true,
      renderer: "svg",
      actions: { export: true, source: false, compiled: false, editor: false },
      tooltip: { theme: dark.matches ? "dark" : "light" },
      config: { background: "transparent", font: "system-ui, sans-serif" },
    });
  }
}

draw();
dark.addEventListener("change", draw);

// tables that are folded on the screen are printed
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("main > section > details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of folded) details.open = false;
});

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
