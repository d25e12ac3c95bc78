// Filters of the page, and its figures, which are drawn when they come into view.
// The state is in the address: #task=pusht_lowdim&method=bac,full&budget=10 ticks these boxes alone.
"use strict";

(function () {
  const KINDS = ["task", "method", "budget"];
  const NARROW = 640; // pixels: no room for a legend beside the axes
  const boxes = Array.from(document.querySelectorAll("#filters input"));
  const charts = Array.from(document.querySelectorAll(".chart"));
  const tagged = Array.from(document.querySelectorAll("[data-task], [data-method], [data-budget]"));

  function of(kind) {
    return boxes.filter((box) => box.dataset.kind === kind);
  }

  function shows(tags) {
    return KINDS.every((kind) => {
      const box = of(kind).find((candidate) => candidate.value === (tags || {})[kind]);
      return box === undefined || box.checked;
    });
  }

  // ---- the address ----
  function readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    for (const kind of KINDS) {
      const values = wanted.has(kind) ? wanted.get(kind).split(",") : null;
      for (const box of of(kind)) {
        box.checked = values === null || values.includes(box.value);
      }
    }
  }

  function writeAddress() {
    const wanted = new URLSearchParams();
    for (const kind of KINDS) {
      const ticked = of(kind).filter((box) => box.checked);
      if (ticked.length < of(kind).length) {
        wanted.set(kind, ticked.map((box) => box.value).join(","));
      }
    }
    history.replaceState(null, "", "#" + wanted.toString().replaceAll("%2C", ","));
  }

  // ---- figures ----
  // Of every trace whether it is seen, and whether it is its group's line in the legend: the first one that is seen.
  function visibility(traces) {
    const named = new Set();
    const visible = traces.map((trace) => shows(trace.meta));
    const showlegend = traces.map((trace, place) => {
      if (!trace.legendgroup) {
        return trace.showlegend !== false;
      }
      const first = visible[place] && !named.has(trace.legendgroup);
      if (first) {
        named.add(trace.legendgroup);
      }
      return first;
    });
    return { visible, showlegend };
  }

  function draw(chart) {
    const figure = JSON.parse(document.getElementById(chart.id + "-data").textContent);
    const seen = visibility(figure.data);
    figure.data.forEach((trace, place) => {
      trace.visible = seen.visible[place];
      trace.showlegend = seen.showlegend[place];
    });
    chart.traces = figure.data.map(({ meta, legendgroup, showlegend }) => ({ meta, legendgroup, showlegend }));
    if (chart.clientWidth < NARROW && figure.layout.legend) {
      figure.layout.legend = { orientation: "h", y: -0.25, yanchor: "top" };
    }
    Plotly.newPlot(chart, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
  }

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting && entry.target.traces === undefined) {
          draw(entry.target);
        }
      }
    },
    { rootMargin: "400px" }
  );

  // ---- filters ----
  function apply() {
    for (const element of tagged) {
      element.hidden = !shows(element.dataset);
    }
    for (const chart of charts) {
      if (chart.traces !== undefined) {
        Plotly.restyle(chart, visibility(chart.traces));
      }
    }
  }

  document.getElementById("filters").addEventListener("change", () => {
    writeAddress();
    apply();
  });
  for (const button of document.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => {
      of(button.dataset.all).forEach((box) => (box.checked = true));
      writeAddress();
      apply();
    });
  }
  for (const button of document.querySelectorAll("[data-play]")) {
    button.addEventListener("click", () => {
      for (const video of button.closest(".rollouts").querySelectorAll("video")) {
        video.currentTime = 0;
        video.play();
      }
    });
  }
  window.addEventListener("hashchange", () => {
    if (location.hash.includes("=")) {
      readAddress();
      apply();
    }
  });

  if (location.hash.includes("=")) {
    readAddress();
  }
  apply();
  charts.forEach((chart) => watcher.observe(chart));
})();
