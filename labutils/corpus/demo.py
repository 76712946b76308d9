"""The default data: procedural music with genre and affect labels, in numpy and scipy only (Notebook 04).

`plan` draws a data set: the artist of each clip, the hidden affect of its sound, and labels: this affect plus
noise that the sound does not know. `compose` turns a row into a song (tempo, metre, key, chords, groove) of its
artist (arrangement, drum kit, room, equaliser, tape), and `render` plays the song on synthetic instruments. What
makes a genre stands in one table, `assets/styles.csv`. Numbers measured on this music say nothing about real music.
"""

from collections import namedtuple
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import scipy

from ..audio import SAMPLE_RATE

# Tables and formulas are set by hand.
# fmt: off
AXES = ("valence", "energy", "danceability")
KNOWABLE = {"valence": .5, "energy": .72, "danceability": .7}  # share of labels that drives the sound
SIZES = ("default", "tiny")  # 724 and 91 clips
BORROW = .15  # chance that a part of the arrangement comes from any other genre
LARGEST = {"default": 5, "tiny": 2}  # number of clips of an artist
COLOUR = 2.1  # dB, spread of each artist's random equaliser and of each clip's: no two recordings sound alike
ASSETS = Path(__file__).parent / "assets"
ANY = "C Db D Eb E F Gb G Ab A Bb B"  # tonics


@dataclass(frozen=True)
class Style:
    """What makes a genre. A text lists equally likely choices; a repeated choice is a likelier one."""

    clips: int  # in a default data set
    affect: str  # row of echonest_by_genre.csv or, where it has none, plausible means in order of AXES
    tempo: str  # slowest and fastest, beats per minute
    metre: str  # beats per bar, one digit a choice
    keys: str  # tonics
    minor: float  # chance of a minor mode at middle valence
    swing: float  # delay of off-beats, 0 straight to 1 triplets
    drive: float  # distortion of chords and lead, 0 clean to 1 fuzz
    room: float  # reverberation, 0 dry to 1 cathedral
    tone: float  # brightness, -1 dull to 1 sharp
    hiss: float  # tape noise, dB below the music
    changes: str  # chord progressions, see CHANGES
    drums: str  # drum patterns, see DRUMS
    bass: str  # instrument:manner, see TIMBRES and MANNERS
    chords: str
    lead: str


_rows = pd.read_csv(ASSETS / "styles.csv", dtype={"metre": str}, keep_default_na=False).to_dict("records")
STYLES = {row.pop("genre"): Style(**row) for row in _rows}
GENRES = tuple(STYLES)
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10),
          "mixolydian": (0, 2, 4, 5, 7, 9, 10), "phrygian": (0, 1, 3, 5, 7, 8, 10),
          "harmonic": (0, 2, 3, 5, 7, 8, 11), "hijaz": (0, 1, 4, 5, 7, 8, 10)}
# major and minor scale, notes per chord (2: bare fifth), beats per chord, progressions (degrees from 0)
CHANGES = {"rock": ("mixolydian", "minor", 3, 4, ("0 6 3 0", "0 3 4 3", "0 0 6 3")),
           "pop": ("major", "minor", 3, 4, ("0 4 5 3", "5 3 0 4", "0 5 3 4")),
           "folk": ("major", "dorian", 3, 4, ("0 3 0 4", "0 0 3 4", "0 4 3 0")),
           "power": ("minor", "phrygian", 2, 2, ("0 0 1 0", "0 5 6 0", "0 2 1 0")),
           "vamp": ("dorian", "minor", 4, 4, ("0 3", "0 6", "0 0 5 6")),
           "drone": ("mixolydian", "minor", 2, 8, ("0", "0 0 0 6")),
           "blues": ("mixolydian", "dorian", 4, 4, ("0 3 0 0 3 3 0 0 4 3 0 4", "0 0 3 0 4 3 0 4")),
           "jazz": ("major", "harmonic", 4, 2, ("1 4 0 5", "0 5 1 4", "2 5 1 4 0 0")),
           "classical": ("major", "harmonic", 3, 2, ("0 3 4 0", "0 5 1 4", "0 4 0 3 1 4 0 0")),
           "modal": ("hijaz", "harmonic", 2, 4, ("0 0 1 0", "0 6 0 1"))}
BEATS, EIGHTHS, ALL, BACK, OFF = "x..." * 4, "x." * 8, "x" * 16, "....x..." * 2, "..x." * 4
# kick, snare and hat on sixteenths; a bar of three beats takes the first twelve
DRUMS = {"none": ("", "", ""), "four": (BEATS, BACK, OFF), "blast": (EIGHTHS, OFF, BEATS),
         "rock": ("x.......x.x.....", BACK, EIGHTHS), "punk": ("x.....x.x.x...x.", BACK, EIGHTHS),
         "boombap": ("x......x..x.....", BACK, EIGHTHS), "shuffle": ("x.......x.......", BACK, EIGHTHS),
         "break": ("x.....x...x.....", "....x..x.x..x...", "x.x.xxx.x.x.xxx."),
         "chip": (BEATS, "..x...x...x.x.x.", ALL), "hand": ("x.....x...x.....", "...x........x.x.", OFF),
         "ride": ("x...............", "......x.........", "x...x.x." * 2)}
# steps of a bar on which a part plays; share of the gap to its next onset that a note fills (2: it rings on)
MANNERS = {
    "root": ("x.....x.x.......", 1), "run": (EIGHTHS, .8), "octave": (EIGHTHS, .6), "offbeat": (OFF, .8),
    "walk": (BEATS, .9), "hold": ("x...............", 1), "stab": ("x.....x...x.....", .4), "roll": (ALL, 2),
    "strum": ("x.x.x.xxx.x.x.xx", 1.2), "chug": ("x.xxx.xxx.xxx.xx", .5), "riff": (ALL, .8),
    "tune": ("x.x.x.xxx.x.x.x.", .9), "long": ("x......." * 2, 1), "rap": ("x.xxx.xxxx.xx.xx", .5)}
# lowest MIDI note; spectrum (slope s of amplitudes n ** -s, or first amplitudes); attack in s; decay to 1/e
# in s (0 sustains); vibrato in cents; gain; kind: wave, string (Karplus-Strong), pulse or voice (formants)
Timbre = namedtuple("Timbre", "low partials attack decay vibrato gain kind", defaults=(0., 0., 1., "wave"))
TIMBRES = {
    "bass": Timbre(28, 1.6, .005, .5, kind="string"), "sub": Timbre(26, (1, .25, .05), .01),
    "guitar": Timbre(40, 1, .003, .9, kind="string"), "steel": Timbre(43, .8, .002, .9, kind="string"),
    "nylon": Timbre(43, 1.6, .004, .5, kind="string"), "banjo": Timbre(55, .5, .001, .25, kind="string"),
    "cello": Timbre(36, 1.3, .08, 0, 12), "strings": Timbre(52, 1.1, .12, 0, 18, .7),
    "pad": Timbre(48, 1.7, .35, 0, 10, .8), "organ": Timbre(48, (1, .8, .6, .5, 0, .3, 0, .3), .01, 0, 8, .7),
    "saw": Timbre(45, 1, .005, .5, 4, .6), "chip": Timbre(52, 0, .001, .6, 0, .5, "pulse"),
    "piano": Timbre(48, 1.4, .003, .6), "epiano": Timbre(48, (1, .25, .08, .15, .02, 0, .1), .004, .8, 5),
    "brass": Timbre(52, (.5, .9, 1, .8, .6, .5, .3, .2, .1), .04, 0, 10, .7),
    "flute": Timbre(64, (1, .35, .12, .05), .06, 0, 20), "voice": Timbre(53, .9, .05, 0, 30, .9, "voice")}


def plan(size="default", seed=0):
    """Draw a data set: one row a clip, in random order, fixed by `size` and `seed` (Notebook 04).

    Returns a DataFrame: `file`, `genre`, `split` ("train", "test": 3 to 1 in each genre), `group` (the artist: of
    one genre and one split, with 1 to `LARGEST` clips), the three labels in [0, 1], `seed` (of the clip),
    `artist_seed`, and `sound_valence` and so on: the hidden affect that drives the music (in [0, 1], about
    uniform). Raises ValueError if `size` is not one of `SIZES`.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    rng, rows = np.random.default_rng([seed, 4]), []
    for genre, style in STYLES.items():
        count = style.clips if size == "default" else min(6, style.clips // 7)
        num_test = max(1, round(count / 4))
        ends = np.union1d(rng.integers(1, LARGEST[size] + 1, count).cumsum(), num_test)  # of each artist's clips
        for i, artist in enumerate(np.searchsorted(ends, np.arange(count), "right")):
            split = "test" if i < num_test else "train"
            rows.append((f"{genre.lower()}-{i:04d}", genre, split, f"{genre.lower()}-{artist:02d}"))
    clips = pd.DataFrame(rows, columns=["file", "genre", "split", "group"])
    sound, labels = _affect(clips.genre, rng)
    clips[list(AXES)] = labels.round(3)
    clips["seed"], artists = rng.integers(2**31, size=(2, len(clips)))
    clips["artist_seed"] = artists[pd.factorize(clips.group)[0]]
    clips[[f"sound_{axis}" for axis in AXES]] = scipy.special.ndtr(sound).round(4)
    return clips.iloc[rng.permutation(len(clips))].reset_index(drop=True)


def _affect(genres, rng):
    """Latent affect of the sounds [N, 3], mean 0 and variance 1, and the labels [N, 3] in [0, 1].

    In a genre the latent values are normal, with means, spreads and correlations of real labels. A label is
    the sound's latent value plus independent noise, ranked among all clips and read off the real quantiles.
    """
    table = pd.read_csv(ASSETS / "echonest_by_genre.csv", index_col="genre")
    quantiles = pd.read_csv(ASSETS / "echonest_quantiles.csv", index_col=0)
    levels = scipy.special.ndtri(np.clip(quantiles.index, .005, .995))
    knowable = np.array([KNOWABLE[axis] for axis in AXES])
    sound = np.empty((len(genres), 3))
    for genre in genres.unique():
        affect, known = STYLES[genre].affect, STYLES[genre].affect in table.index
        row = table.loc[affect if known else "ALL"]
        means = row[[f"{axis}_mean" for axis in AXES]] if known else map(float, affect.split())
        means = np.array([np.interp(mean, quantiles[axis], levels) for mean, axis in zip(means, AXES)])
        spread = (row / table.loc["ALL"])[[f"{axis}_std" for axis in AXES]].to_numpy(float)
        spread = spread * (1 if known else .85)  # one genre varies less than all music
        ve, vd, ed = row[["rho_valence_energy", "rho_valence_dance", "rho_energy_dance"]]
        correlation = [[1, ve, vd], [ve, 1, ed], [vd, ed, 1]]
        covariance = np.outer(spread, spread) * correlation - np.diag(1 - knowable)
        values, vectors = np.linalg.eigh(covariance / np.sqrt(np.outer(knowable, knowable)))
        root = (vectors * np.sqrt(np.maximum(values, .05))) @ vectors.T  # symmetric: the same whatever eigh's signs
        draws = rng.standard_normal((int((genres == genre).sum()), 3))
        sound[genres == genre] = draws @ root + means / np.sqrt(knowable)
    sound = (sound - sound.mean(0)) / sound.std(0)
    mixed = np.sqrt(knowable) * sound + np.sqrt(1 - knowable) * rng.standard_normal(sound.shape)
    ranks = (scipy.stats.rankdata(mixed, "ordinal", axis=0) - .5) / len(mixed)
    labels = [np.interp(rank, quantiles.index, quantiles[axis]) for rank, axis in zip(ranks.T, AXES)]
    return sound, np.transpose(labels)


def best_attainable_rho():
    """Spearman's rho per axis of a perfect reading of the sound: no model can expect more.

    Sound and label are jointly normal (nearly: genres mix) with correlation sqrt(KNOWABLE).
    """
    return {axis: float(6 / np.pi * np.arcsin(np.sqrt(share) / 2)) for axis, share in KNOWABLE.items()}


def compose(clip, seconds=10.):
    """Turn a row of `plan` into a song: tempo, metre, key, mode, chords, groove, arrangement (Notebook 04).

    Returns a namespace: `style`, `seconds`, `affect` (of the sound, as in AXES), `tempo` (beats per minute),
    `metre` (beats per bar), `tonic` (0 is C), `scale` (semitones), `chords` (scale degrees, step by step: a
    quarter of a beat), `times` (onset of each step in s, and the end), `parts` (what plays, and how),
    `brightness` (0 to 7), `artist` (see `_artist`), and `rng`, the random numbers left to the players.
    """
    style, rng, artist = STYLES[clip["genre"]], np.random.default_rng(int(clip["seed"])), _artist(clip)
    valence, energy, dance = affect = tuple(float(clip[f"sound_{axis}"]) for axis in AXES)
    parts = artist.parts
    tempo = rng.uniform(*map(float, style.tempo.split())) * 2 ** (.4 * (energy - .5) + .2 * (valence - .5))
    tempo *= (120 / tempo) ** (.4 * dance)
    metre = int(rng.choice(list(style.metre)))
    tonic = ANY.split().index(rng.choice((style.keys if rng.random() < .4 else ANY).split()))
    major, minor, size, beats, progressions = CHANGES[parts["changes"]]
    is_minor = rng.random() < np.clip(style.minor + 1.4 * (.5 - valence), .03, .97)
    steps = int(np.ceil(seconds * tempo / 15)) + 1
    roots = np.roll([int(degree) for degree in rng.choice(progressions).split()], -rng.integers(4))
    shape = (0, 4, 7) if size == 2 else range(0, 2 * size, 2)
    chord = {root: [root + degree for degree in shape] for root in roots}
    chords = [chord[root] for root in np.resize(np.repeat(roots, beats * metre), steps)]
    times = _times(steps, tempo, style.swing, dance, parts["drums"] == "none", rng)
    brightness = int(np.clip(round(3.5 + 1.2 * style.tone + 3.5 * (energy - .5) + rng.normal(0, 1)), 0, 7))
    return SimpleNamespace(
        style=style, seconds=seconds, affect=affect, tempo=tempo, metre=metre, tonic=tonic, chords=chords,
        scale=SCALES[minor if is_minor else major], times=times, parts=parts, brightness=brightness, artist=artist,
        rng=rng)


def _artist(clip):
    """What the clips of an artist share: `parts`, the drum kit, the room, the equaliser, the tape.

    Returns a namespace: `parts` (what plays, and how), `tuning` (of the drums), `decays` (of snare and hat, in 1/s),
    `wet` (reverberation, 0 to 1), `tail` (of the room, float32), `tilt` (dB per octave), `colour` (dB in 7 bands) and
    `hiss` (dB below the music).
    """
    style, rng = STYLES[clip["genre"]], np.random.default_rng(int(clip["artist_seed"]))
    parts = {}
    for part in ("changes", "drums", "bass", "chords", "lead"):
        source = STYLES[rng.choice(GENRES)] if rng.random() < BORROW else style
        parts[part] = str(rng.choice(getattr(source, part).split()))
    wet = np.float32(np.clip(style.room + rng.normal(0, .15), 0, 1))
    decay = np.linspace(0, 6, int(SAMPLE_RATE * (.2 + 1.2 * wet)))
    return SimpleNamespace(
        parts=parts, tuning=rng.uniform(.85, 1.2), decays=rng.uniform((12, 35), (25, 90)),
        tilt=2 * style.tone + rng.normal(0, COLOUR / 2), colour=rng.normal(0, COLOUR, 7),
        hiss=style.hiss + rng.normal(0, 8), wet=wet, tail=np.float32(rng.standard_normal(len(decay)) * np.exp(-decay)))


def _times(steps, tempo, swing, dance, free, rng):
    """Onsets [steps + 1] in s: the less danceable, the more the tempo drifts and the players stray."""
    step, drift = np.arange(steps + 1), (1 - dance) * (.16 if free else .04)
    wave = np.sin(2 * np.pi * (step / rng.uniform(24, 56) + rng.random())) + rng.normal(0, .3, steps + 1)
    times = np.append(0, np.cumsum(15 / tempo * (1 + drift * wave))[:-1])
    late = np.array([0, .2, .66, .2])[step % 4] * swing * 15 / tempo
    return np.maximum(times + late + rng.normal(0, .022 * (1 - dance), steps + 1), 0)


def render(clip, seconds=10.):
    """Compose and play one row of `plan`: float32 [seconds * 22050], mono, in [-1, 1] (Notebook 04).

    The same row gives the same samples; another length gives another take of the song, not a prefix of it.
    """
    song = compose(clip, seconds)
    melodic = _part(song, "chords") + .8 * _part(song, "lead")
    level = np.sqrt(np.mean(melodic**2)) + 1e-9
    drive = .01 + song.style.drive * (.6 + 2.4 * song.affect[1])
    melodic = 1.2 * level * np.tanh(drive * melodic / level) / np.tanh(drive)
    return _master(song, 1.1 * _part(song, "bass") + melodic + 1.5 * _drums(song))


def _pattern(song, text, keep):
    """Steps on which a part plays, bool [steps]: two bars in a loop, off-beats kept with chance `keep`."""
    bar = 4 * song.metre
    kept = (song.rng.random(2 * bar) < keep) | (np.arange(2 * bar) % 4 == 0)
    return np.resize(np.tile([mark == "x" for mark in text[:bar]], 2) & kept, len(song.chords))


def _accents(song):
    """Gain [steps]: beats stand out in danceable music, quiet music breathes."""
    _, energy, dance = song.affect
    step, bar = np.arange(len(song.chords)), 4 * song.metre
    beats = np.where(step % 4, 1 - .6 * dance, 1) * np.where(step % bar, 1, 1 + .3 * dance)
    swell = 1 + .6 * (1 - energy) * np.sin(2 * np.pi * (step / bar / 4 + song.rng.random()))
    return beats * swell * np.exp(song.rng.normal(0, .4 * (1 - energy), len(step)))


def _add(track, sound, time, gain):
    """Mix `sound` into `track`, in place, from `time` in s."""
    room = track[int(time * SAMPLE_RATE):][:len(sound)]
    room += np.float32(gain) * sound[:len(room)]


def _part(song, role):
    """Play the bass, the chords or the lead: float32 [samples]."""
    track = np.zeros(int(song.seconds * SAMPLE_RATE), np.float32)
    if song.parts[role] == "none":
        return track
    name, manner = song.parts[role].split(":")
    pattern, share = MANNERS[manner]
    on = _pattern(song, pattern, .25 + .75 * song.affect[1])
    if manner in ("hold", "root"):
        on[1:] |= [now is not before for now, before in zip(song.chords[1:], song.chords)]
    steps = np.flatnonzero(on)
    lengths = np.diff(song.times[np.append(steps, len(on))]) * share * (1.25 - .6 * song.affect[0])  # s
    gains = .35 * _accents(song)[steps]
    for step, pitches, length, gain in zip(steps, _pitches(song, role, steps), lengths, gains):
        for i, pitch in enumerate(pitches):
            sound = note(name, pitch, int(np.clip(round(8 * length), 1, 24)), song.brightness)
            _add(track, sound, song.times[step] + .01 * i * (manner == "strum"), gain / len(pitches) ** .5)
    return track


def _pitches(song, role, steps):
    """Yield a part's MIDI pitches at each of `steps`: roots, chord tones, or a walk among them."""
    name, manner = song.parts[role].split(":")
    low = TIMBRES[name].low + {"bass": 0, "chords": 0, "lead": 7}[role]
    low += 0 if role == "bass" else round(12 * (song.affect[0] - .5))  # happy is high
    walk, moves = 2, song.rng.choice([-2, -1, -1, 0, 1, 1, 2], 8 * song.metre)
    for count, step in enumerate(steps):
        chord = song.chords[step]
        if role == "bass":
            pattern = {"octave": (0, 7, 0, 7), "walk": (0, 2, 4, 5)}.get(manner, (0, 0, 0, 0))
            degrees = [(chord[0] + 3) % 7 - 3 + pattern[count % 4]]
        elif manner == "roll":
            degrees = [[*chord, chord[0] + 7][(0, 1, 2, 1, 3, 2)[count % 6] % (len(chord) + 1)]]
        elif role == "chords":
            degrees = chord
        else:
            walk += 0 if manner == "rap" and step % 4 else moves[step % len(moves)] - round((walk - 3) / 6)
            degrees = [walk if step % 8 else min(chord, key=lambda tone: abs(tone - walk))]
        tonic = low + (song.tonic - low) % 12
        yield [int(tonic + song.scale[degree % 7] + 12 * (degree // 7)) for degree in degrees]


@lru_cache(maxsize=1000)
def note(name, pitch, eighths, brightness):
    """A note, made or cached, of some `eighths` of a second: float32 [samples], peak near 1."""
    timbre, f0 = TIMBRES[name], 440 * 2 ** ((pitch - 69) / 12)
    time = np.arange(int((eighths / 8 + .05) * SAMPLE_RATE)) / SAMPLE_RATE
    cutoff = 500 * 2 ** (.6 * brightness)  # Hz: 500 to 9,200
    if timbre.kind == "string":
        sound = _string(f0, len(time), cutoff / timbre.partials)
    else:
        table = scipy.fft.irfft(np.append(0, -.5j * _spectrum(timbre, f0, cutoff)), 2048)  # one period
        bend = timbre.vibrato / 1200 * np.minimum(time / .4, 1) * np.sin(2 * np.pi * 5.5 * time)  # octaves
        sound = table[np.int64(2048 * np.cumsum(f0 / SAMPLE_RATE * 2**bend)) % 2048]
    envelope = np.minimum(1, np.minimum(time / timbre.attack, (time[-1] - time) / .04))
    envelope *= np.exp(-time / (timbre.decay or np.inf))
    return np.float32(timbre.gain * envelope * sound / np.abs(sound).max())


def _spectrum(timbre, f0, cutoff):
    """Amplitudes of the harmonics of `f0` Hz up to 9.5 kHz, softened above `cutoff` Hz."""
    n = np.arange(1, np.clip(int(9500 / f0), 2, 60) + 1)
    if timbre.kind == "pulse":
        amplitudes = np.abs(np.sin(np.pi * n / 4)) / n  # a quarter of the period high
    elif timbre.kind == "voice":
        formants = ((600, 110), (1100, 140), (2500, 250))  # centre and width, Hz
        amplitudes = .3 / n + sum(1 / (1 + ((n * f0 - centre) / width) ** 2) for centre, width in formants)
    elif isinstance(timbre.partials, tuple):
        amplitudes = np.append(timbre.partials, np.zeros(len(n)))[:len(n)]
    else:
        amplitudes = n ** -float(timbre.partials)
    return amplitudes / np.sqrt(1 + (n * f0 / cutoff) ** 2)


def _string(f0, size, cutoff):
    """A plucked string after Karplus and Strong (1983): a loop of one period, dulled at each turn."""
    period, fraction = int(SAMPLE_RATE / f0), np.clip(SAMPLE_RATE / f0 % 1, .1, .9)
    burst, loop = np.zeros(size), np.zeros(period + 2)
    burst[:period] = np.random.default_rng(period).uniform(-1, 1, period)
    loop[0], loop[-2], loop[-1] = 1, .996 * (fraction - 1), -.996 * fraction
    pole = np.exp(-2 * np.pi * cutoff / SAMPLE_RATE)
    return scipy.signal.lfilter([1], loop, scipy.signal.lfilter([1 - pole], [1, -pole], burst))


def _drums(song):
    """Play the drum kit: float32 [samples]."""
    track, rng = np.zeros(int(song.seconds * SAMPLE_RATE), np.float32), song.rng
    kick, snare, hat = DRUMS[song.parts["drums"]]
    if not kick:
        return track
    _, energy, dance = song.affect
    time = np.arange(SAMPLE_RATE // 3) / SAMPLE_RATE
    noise = rng.standard_normal(len(time))
    tuning = song.artist.tuning * (2 if song.parts["drums"] == "hand" else 1)
    sharp = scipy.signal.lfilter([1, -.92], [1], noise)
    sweep = np.sin(2 * np.pi * tuning * np.cumsum(48 + 110 * np.exp(-40 * time)) / SAMPLE_RATE)
    skin = .5 * np.sin(2 * np.pi * 185 * tuning * time) + (.15 + .3 * energy) * noise
    kick = BEATS if rng.random() < dance - .4 else kick
    for text, sound, keep, level in (
            (kick, sweep * np.exp(-12 * time), .3 + .7 * dance, .2 + 1.1 * dance),
            (snare, skin * np.exp(-song.artist.decays[0] * time), .5 + .5 * energy, .35 + .4 * dance),
            (hat, .3 * sharp * np.exp(-song.artist.decays[1] * time), .1 + .9 * energy, .3 + .7 * energy)):
        accents = _accents(song)
        for step in np.flatnonzero(_pattern(song, text, keep)):
            _add(track, sound.astype(np.float32), song.times[step], .5 * level * accents[step])
    return track


def _master(song, mix):
    """Record a mix: room, equaliser, tape noise, compression, level. float32 [samples]."""
    rng, artist, tail, energy = song.rng, song.artist, song.artist.tail, song.affect[1]
    size = scipy.fft.next_fast_len(len(mix) + len(tail), real=True)
    octaves = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20) / 1000)  # above 1 kHz
    tilt = artist.tilt + 3 * (energy - .5) + rng.normal(0, COLOUR / 2)  # dB per octave
    bands = artist.colour + rng.normal(0, COLOUR, 7)
    colour = np.interp(octaves, np.linspace(-5, 3.5, 7), bands) + tilt * octaves
    gain = np.float32(10 ** (colour / 20) * (octaves > -5))  # nothing below 31 Hz
    room = 1 + artist.wet * scipy.fft.rfft(tail / np.sqrt(np.sum(tail**2)), size)
    mix = scipy.fft.irfft(scipy.fft.rfft(mix, size) * room * gain, size)[:len(mix)]
    mix /= np.sqrt(np.mean(mix**2))
    mix += 10 ** (-artist.hiss / 20) * rng.standard_normal(len(mix)).astype(np.float32)
    press = .1 + .6 * energy  # a loud master is a squeezed one
    return np.float32(10 ** ((14 * energy - 16) / 20) * np.tanh(press * mix) / np.tanh(4 * press))
