// Gives every viewer the mesh that the page holds beside it once it is looked at, and turns
// those of one name together.
const load = (viewer) => {
  const held = viewer.parentElement.querySelector("script");
  const bytes = Uint8Array.from(atob(held.textContent), (letter) => letter.charCodeAt(0));
  viewer.src = URL.createObjectURL(new Blob([bytes], { type: "model/gltf-binary" }));
};
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      load(entry.target);
    }
  }
}, { rootMargin: "200px" });
for (const viewer of document.querySelectorAll("model-viewer")) {
  seen.observe(viewer);
  viewer.addEventListener("load", () => viewer.classList.add("loaded"));
  viewer.addEventListener("camera-change", (event) => {
    if (event.detail.source !== "user-interaction" || !viewer.dataset.together) return;
    const { theta, phi } = viewer.getCameraOrbit();
    for (const other of document.querySelectorAll("model-viewer")) {
      if (other !== viewer && other.dataset.together === viewer.dataset.together) {
        other.cameraOrbit = `${theta}rad ${phi}rad auto`;
        other.jumpCameraToGoal();
      }
    }
  });
}
