"use strict";
// Fetches the page again now and then and puts its live parts in place. Without it the page is a picture.
const EVERY = 5000;
const offline = document.getElementById("offline");
let paused = false;
let lastSeen = new Date();

function isInUse(part) {
  const selection = document.getSelection();
  return part.contains(document.activeElement) ||
    (!selection.isCollapsed && part.contains(selection.anchorNode));
}

async function refresh() {
  const response = await fetch(location.href.split("#")[0], { signal: AbortSignal.timeout(15000) });
  if (!response.ok) throw new Error(response.statusText);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (next && !isInUse(part)) part.replaceWith(document.adoptNode(next));
  }
  lastSeen = new Date();
}

async function tick() {
  if (!paused && !document.hidden) {
    try {
      await refresh();
      offline.hidden = true;
    } catch {
      offline.textContent = `The worker does not answer; this is how it was at ${lastSeen.toLocaleTimeString()}.`;
      offline.hidden = false;
    }
  }
  setTimeout(tick, EVERY);
}

const button = document.createElement("button");
button.type = "button";
button.textContent = "Pause";
button.title = "The page is refreshed every 5 seconds";
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Go on" : "Pause";
});
document.getElementById("controls").append(button);
setTimeout(tick, EVERY);
