// For each explorer without a cursor: a line over the picture at the player's time, and the number of the beat.
for (const root of document.querySelectorAll("figure.explorer:not([data-ready])")) {
  root.dataset.ready = "yes";
  const {left, width, top, height, seconds, beats} = JSON.parse(root.dataset.place);
  const [picture, player, text] = ["div", "audio", "p"].map(tag => root.querySelector(tag));
  const cursor = document.createElement("span");
  cursor.style.cssText = `position: absolute; top: ${top}%; height: ${height}%; width: 0; pointer-events: none;`
    + "border-left: 3px solid #fff; outline: 1px solid #000";
  picture.append(cursor);
  const move = () => {
    cursor.style.left = `${left + width * Math.min(player.currentTime / seconds, 1)}%`;
    const beat = beats.filter(time => time <= player.currentTime).length;
    text.textContent = `${player.currentTime.toFixed(1)} s, beat ${beat} of ${beats.length}`;
    if (!player.paused) requestAnimationFrame(move);
  };
  for (const event of ["play", "seeked", "pause"]) player.addEventListener(event, move);
  picture.addEventListener("click", click => {
    const box = picture.getBoundingClientRect();
    const share = ((click.clientX - box.left) / box.width * 100 - left) / width;
    player.currentTime = seconds * Math.max(0, Math.min(share, 1));
  });
  move();
}
