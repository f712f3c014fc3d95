"""Scripts that measure a page in the browser: when its content is shown, interactions, frames per second."""

from __future__ import annotations

WATCH = """(() => {
    const look = (selector) => {
        const see = () => {
            if (!document.querySelector(selector)) return false;
            requestAnimationFrame(() => setTimeout(() => { window.shownAt = performance.now(); }));
            return true;
        };
        const observer = new MutationObserver(() => see() && observer.disconnect());
        if (!see()) observer.observe(document, {childList: true, subtree: true});
    };
    window.interactions = [];
    new PerformanceObserver((list) => {
        const made = list.getEntries().filter((entry) => entry.interactionId);
        window.interactions.push(...made.map(({duration, name}) => [duration, name]));
    }).observe({type: "event", durationThreshold: 16, buffered: true});
    look(%s);
})()"""
"""Before a page loads: note when an element is first shown and the page is free to answer (`window.shownAt`), and the
durations of interactions to the next paint, in milliseconds (Event Timing; those under 16 ms are left out).
"""

FRAMES = """new Promise((done) => {
    const scrolled = document.querySelector(%s), start = performance.now();
    let frames = 0, last = start, longest = 0;
    const step = (now) => {
        frames += 1;
        longest = Math.max(longest, now - last);
        last = now;
        scrolled.scrollTop += 40;
        now - start < 2000 ? requestAnimationFrame(step) : done([frames * 1000 / (now - start), longest]);
    };
    requestAnimationFrame(step);
})"""
"""Frames per second, and the longest frame in milliseconds, while an element is scrolled for two seconds."""

OPENING = """new Promise((done) => {
    const start = performance.now(), count = () => document.querySelectorAll(".map .node").length, before = count();
    document.querySelector(".map .node.segment").dispatchEvent(new MouseEvent("click", {bubbles: true}));
    const look = () => {
        if (count() === before) return requestAnimationFrame(look);
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
    };
    look();
})"""
"""Milliseconds from a click on a cluster whose content is loaded to the end of the frame that shows another number of
nodes.
"""
