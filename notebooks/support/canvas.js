// A picture to paint on, by mouse, pen, finger or keyboard. Python gets the places and sends the next picture.

const SIDE = 384;

function render({ model, el }) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.style = "max-width: 100%; touch-action: none; cursor: crosshair";
  el.append(canvas);
  const pen = canvas.getContext("2d");
  const picture = new Image();
  let brush = [0.5, 0.5];
  let waiting = []; // places that Python has not been told
  let asked = false; // whether Python is at work on some

  function draw() {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, 0, 0, SIDE, SIDE);
    const [x, y] = brush.map((share) => share * SIDE);
    for (const [colour, more] of [["black", 1], ["white", 0]]) {
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.arc(x, y, model.get("radius") * SIDE + more, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  function send() {
    if (asked || !waiting.length) return;
    asked = true;
    model.send({ places: waiting });
    waiting = waiting.slice(-1).filter(() => down); // a line goes on where it was cut
  }

  function read() {
    const before = picture.src;
    picture.src = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
    if (before) URL.revokeObjectURL(before);
  }

  function answered() { // also where the next picture is the same one
    asked = false;
    if (waiting.length > 1 || !down) send();
  }

  let down = false;
  function move(event) {
    const box = canvas.getBoundingClientRect();
    brush = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (down) {
      waiting.push(brush);
      send();
    }
    draw();
  }

  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", (event) => {
    down = true;
    canvas.setPointerCapture(event.pointerId);
    move(event);
  });
  canvas.addEventListener("pointerup", () => {
    down = false;
    send();
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (step) brush = brush.map((share, n) => Math.min(1, Math.max(0, share + step[n] / 32)));
    else if (event.key === " " || event.key === "Enter") waiting = [brush];
    else return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would move to another cell
    send();
    draw();
  });
  picture.onload = draw;
  const name = () => canvas.setAttribute("aria-label", model.get("label"));
  model.on("change:picture", read);
  model.on("msg:custom", answered);
  model.on("change:radius", draw);
  model.on("change:label", name);
  name();
  read();
}

export default { render };
