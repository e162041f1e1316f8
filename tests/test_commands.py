"""The commands for a trained agent: evaluate, enjoy and record."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from counter_env import Counter
from gymnasium import spaces
from PIL import Image
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relmem.agents import MemoryPPO, evaluate, load
from relmem.cli import main
from relmem.envs import make_vec_env
from relmem.experiment.film import film
from relmem.experiment.folder import RunFolder
from relmem.experiment.play import play
from relmem.experiment.scene import Scene
from relmem.experiment.stills import draw_stills, look_back

CARTPOLE = {"id": "relmem/MaskedCartPole-v0"}
POLICY = {"core": "stm", "core_kwargs": {"queries": 2, "item_size": 6, "relation_size": 3}}


def save_run(folder: Path, env_id: str, name="model.zip", **env_options) -> MemoryPPO:
    """What a training leaves behind that these commands need, without the training."""
    env = make_vec_env(env_id, 1, **env_options)
    model = MemoryPPO("MemoryPolicy", env, n_steps=8, policy_kwargs=POLICY, seed=0)
    model.num_timesteps = 1234
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    model.save(folder / name)
    options = {"id": env_id, "n_envs": 1} | env_options
    config = {"seed": 7, "env": options, "core": {"name": "stm", **POLICY["core_kwargs"]}}
    (folder / "config.yaml").write_text(json.dumps(config))
    return model


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cartpole"
    save_run(folder, CARTPOLE["id"])
    return folder


@pytest.fixture
def run(cartpole, tmp_path):
    return Path(shutil.copytree(cartpole, tmp_path / "run"))


@pytest.fixture(scope="module")
def pong(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "pong"
    save_run(folder, "ALE/Pong-v5", frame_skip=16, image_size=42)
    return folder


def refused(capfd, *argv) -> str:
    """The one sentence that a command says of a mistake."""
    assert main([str(word) for word in argv]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("relmem: ")]
    lines = [line for line in lines if not line.endswith(" ...")]
    assert len(lines) == 1, lines
    return lines[0]


# ---------------------------------------------------------------- evaluate


def test_evaluate_prints_what_the_library_finds_and_adds_it_to_the_results(run, capfd):
    (run / "results.json").write_text(json.dumps({"kind": "agent", "evaluations": [{"mean": 1}]}))
    assert main(["evaluate", str(run), "--episodes", "5", "--seed", "3", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    expected = evaluate(load(run), make_vec_env(CARTPOLE["id"], 5, seed=3), 5)
    assert (found["returns"], found["lengths"]) == (expected.returns, expected.lengths)
    assert found["mean"] == pytest.approx(np.mean(expected.returns))
    assert found["deviation"] == pytest.approx(np.std(expected.returns))
    assert found["median"] == np.median(expected.returns)
    assert [found[key] for key in ("steps", "seed", "deterministic")] == [1234, 3, True]
    results = json.loads((run / "results.json").read_text())
    assert results == {"kind": "agent", "evaluations": [{"mean": 1}, found]}
    RunFolder(run).write_results({"kind": "again"})  # of a training that goes on
    assert json.loads((run / "results.json").read_text())["evaluations"] == [{"mean": 1}, found]


def test_evaluate_shows_a_table_and_every_episode(run, capfd):
    assert main(["evaluate", str(run), "--episodes", "3", "--stochastic"]) == 0
    shown = capfd.readouterr().out
    found = json.loads((run / "results.json").read_text())["evaluations"][0]
    assert found["seed"] == 7 + 2**30 and not found["deterministic"]  # as the run's own evaluations
    assert "sampled actions" in shown and f"{found['mean']:.2f}" in shown
    assert "returns  " + " ".join(f"{value:g}" for value in found["returns"]) in shown


def test_options_of_the_environment_may_stand_before_the_run(run, capfd):
    assert main(["evaluate", "--env.max_frames", "3", str(run), "--episodes", "1", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["options"] == {"env.max_frames": "3"}


def test_evaluate_in_another_environment_than_the_run_s(run, capfd):
    assert main(["evaluate", str(run), "--episodes", "2", "--env.max_frames", "4", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["lengths"] == [4, 4] and found["options"] == {"env.max_frames": "4"}


@pytest.mark.parametrize("name", ["model.zip", "best_model.zip", "checkpoints/step_000000000064.zip", "."])
def test_a_file_of_the_run_is_evaluated_with_the_run_s_options(run, name, capfd):
    (run / "checkpoints").mkdir()
    for copy in ("best_model.zip", "checkpoints/step_000000000064.zip", "checkpoints/step_000000000008.zip"):
        shutil.copy(run / "model.zip", run / copy)
    if name == ".":  # not over yet
        (run / "model.zip").unlink()
    assert main(["evaluate", str(run / name), "--episodes", "1", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["file"] == ("step_000000000064.zip" if name == "." else Path(name).name)
    assert len(json.loads((run / "results.json").read_text())["evaluations"]) == 1


def test_a_run_that_goes_on_loads_what_was_trained_longest(run):
    (run / "checkpoints").mkdir()
    model = load(run)
    for step in (64, 9999):
        model.num_timesteps = step
        model.save(run / "checkpoints" / f"step_{step:012d}.zip")
        assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    evaluations = json.loads((run / "results.json").read_text())["evaluations"]
    assert [each["file"] for each in evaluations] == ["model.zip", "step_000000009999.zip"]


def test_a_model_alone_needs_the_name_of_its_environment(run, tmp_path, capfd):
    alone = Path(shutil.copy(run / "model.zip", tmp_path / "alone.zip"))
    assert "no config.yaml beside" in refused(capfd, "evaluate", alone)
    assert main(["evaluate", str(alone), "--env.id", CARTPOLE["id"], "--episodes", "1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.zip", "run"]


def test_results_that_are_not_whole_stay_as_they_are(run, capfd):
    (run / "results.json").write_text("{half")
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    assert "is not whole" in capfd.readouterr().err and (run / "results.json").read_text() == "{half"


@pytest.mark.parametrize("command", ["evaluate", "record"])
def test_what_cannot_be_played_is_refused_in_a_sentence(command, run, tmp_path, capfd):
    film_ = ["--video", tmp_path / "film.gif"] if command == "record" else []
    say = partial(refused, capfd, command)
    (tmp_path / "empty").mkdir()
    assert "there is no saved agent at" in say(tmp_path / "empty", *film_)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "model.pt").touch()
    assert "model of a supervised task" in say(tmp_path / "task", *film_)
    assert "observes Box(" in say(run, "--env.id", "CartPole-v1", *film_)
    assert "did you mean 'max_frames'" in say(run, "--env.maxframes", "3", *film_)
    assert "did you mean 'episodes'" in say(run, "--episode", "3", *film_)
    assert "needs a value" in say(run, "--env.max_frames", *film_)
    assert "env.n_envs is for training" in say(run, "--env.n_envs", "3", *film_)
    assert "episodes must be an integer of at least 1" in say(run, "--episodes", "0", *film_)
    assert "seed must be" in say(run, "--seed", "-1", *film_)
    assert "unknown device" in say(run, "--device", "gpu", *film_)
    assert "arguments are required: RUN" in say(*film_)
    (run / "model.zip").write_bytes((run / "model.zip").read_bytes()[:-200])
    assert "is damaged" in say(run, *film_)
    assert not (tmp_path / "film.gif").exists() and not (run / "results.json").exists()


def test_an_agent_of_other_actions_is_refused(run, capfd):
    class Other(Counter):
        observation_space = make_vec_env(CARTPOLE["id"]).observation_space
        action_space = spaces.Discrete(5)

    import gymnasium

    gymnasium.register("relmem/Other-v0", lambda: Other(3))
    assert "acts in Discrete(2), but relmem/Other-v0 takes Discrete(5)" in refused(
        capfd, "evaluate", run, "--env.id", "relmem/Other-v0"
    )


# ---------------------------------------------------------------- record


@pytest.mark.parametrize("memory", [[], ["--memory"]], ids=["", "memory"])
def test_a_film_shows_the_game_in_its_own_colours(memory, pong, tmp_path, capfd):
    path = tmp_path / "pong.gif"
    assert main(["record", str(pong), "--video", str(path), "--seconds", "1", "--seed", "5", *memory]) == 0
    assert "Filmed" in capfd.readouterr().out
    frames = iio.imread(path)
    assert len(frames) == 15 and path.stat().st_size < 500_000
    game = frames[0, 30:200, 12:160]
    court = (np.abs(game.astype(int) - [144, 72, 17]).max(axis=2) < 12).mean()  # Pong's brown
    assert court > 0.8
    assert (frames[0].shape[1] > 500) == bool(memory)
    assert not list(tmp_path.glob(".*"))


def test_a_film_plays_at_the_speed_of_the_game(pong, tmp_path):
    path = tmp_path / "pong.mp4"
    assert main(["record", str(pong), "--video", str(path), "--seconds", "0.5", "--fps", "30", "--scale", "1"]) == 0
    frames = iio.imread(path)
    assert iio.immeta(path)["fps"] == 30 and len(frames) == 15
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0 and frames.shape[1] < 260


def test_every_frame_of_a_skip_is_seen_and_nothing_of_the_next_episode(pong):
    env = make_vec_env("ALE/Pong-v5", 1, seed=3, frame_skip=16, image_size=42, max_frames=80, render=True)
    moments = [moment for moment, _ in zip(play(load(pong), env, camera=True), range(7), strict=False)]
    assert [len(moment.frames) for moment in moments] == [16] * 7
    assert [moment.done for moment in moments] == [False] * 4 + [True] + [False] * 2
    assert [moment.step for moment in moments] == [0, 1, 2, 3, 4, 0, 1]
    plain = make_vec_env("ALE/Pong-v5", 1, seed=3, frame_skip=16, image_size=42, max_frames=80)
    obs = plain.reset()
    for moment in moments:  # the very episodes that are trained on
        np.testing.assert_allclose(moment.observation.astype(int), obs, atol=1)
        obs, *_ = plain.step(np.array([moment.action]))


def test_nobody_films_on_when_a_film_is_over(pong, tmp_path):
    env = make_vec_env("ALE/Pong-v5", 1, seed=3, frame_skip=16, image_size=42, render=True)
    film(load(pong), env, tmp_path / "film.gif", seconds=0.1)
    assert env.get_attr("_on_frame") == [None]


def test_episodes_end_a_film(run, tmp_path):
    made = film(load(run), make_vec_env(CARTPOLE["id"], 1, seed=0), tmp_path / "film.mp4", episodes=2)
    assert len(made.returns) == 2
    assert made.seconds == pytest.approx(sum(made.returns) / 50)  # a frame for each step, 50 in a second


@pytest.mark.parametrize("name", ["film.avi", "film", "there/is/no/film.mp4"])
def test_films_that_cannot_be_made_are_refused(name, run, tmp_path, capfd):
    assert "film" in refused(capfd, "record", run, "--video", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("scale", ["1000", "0.0001"])
def test_a_game_that_no_film_could_hold_is_refused_before_it_fills_the_memory(scale, run, tmp_path, capfd):
    assert main(["record", str(run), "--video", str(tmp_path / "film.mp4"), "--scale", scale]) == 2
    assert "1 to 4096 are possible" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_written_to_is_refused_first(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    for flag, name in (("--video", "film.mp4"), ("--stills", "stills")):
        assert f"cannot write to folder '{tmp_path}'" in refused(capfd, "record", run, flag, tmp_path / name)


def test_nothing_is_overwritten(run, tmp_path, capfd):
    (tmp_path / "film.mp4").write_text("mine")
    (tmp_path / "stills").mkdir()
    assert "exists already" in refused(capfd, "record", run, "--video", tmp_path / "film.mp4")
    assert "exists already" in refused(capfd, "record", run, "--stills", tmp_path / "stills")
    assert "needs a --video FILE.mp4, a --stills FOLDER" in refused(capfd, "record", run)
    assert (tmp_path / "film.mp4").read_text() == "mine" and not list((tmp_path / "stills").iterdir())


def test_an_environment_without_rendering_has_stills_but_no_film(tmp_path, capfd):
    save_run(tmp_path / "run", "relmem/RepeatFirst-v0")
    film_ = tmp_path / "film.gif"
    assert "has no rendering" in refused(capfd, "record", tmp_path / "run", "--video", film_)
    assert not film_.exists()
    assert main(["record", str(tmp_path / "run"), "--stills", str(tmp_path / "stills")]) == 0
    facts = json.loads((tmp_path / "stills" / "facts.json").read_text())
    assert facts["steps"] == 16 and set(facts["norms"]) == {"item", "relation"} == set(facts["ranks"])
    assert len(facts["ranks"]["item"]) == 16 and 1 <= facts["ranks"]["item"][-1] <= 6
    assert facts["relational_ranks"]["relation_readout.weight"]["bound"] == 3
    assert sum(facts["dependence"]) > 0.9 and len(facts["dependence"]) == 16
    for name in ("memory", "norms", "saliency"):
        assert Image.open(tmp_path / "stills" / f"{name}.png").width > 500


def test_a_missing_extra_is_named(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    said = refused(capfd, "record", run, "--video", tmp_path / "film.mp4")
    assert "needs the extra [video]: pip install 'relmem[video]'" in said


def test_stills_of_an_agent_without_memory_show_what_it_depends_on(tmp_path):
    env = make_vec_env(CARTPOLE["id"], 1)
    model = MemoryPPO("MemoryPolicy", env, policy_kwargs={"core": "identity"}, n_steps=8)
    assert [file.name for file in draw_stills(model, env, tmp_path / "stills")] == ["facts.json", "saliency.png"]
    assert look_back(model, env, steps=3).facts["steps"] <= 3


@pytest.mark.parametrize(
    "shown",
    [
        spaces.Box(-1, 1, (3,)),
        spaces.Box(-1, 1, (200,)),
        spaces.Discrete(4),
        spaces.Box(0, 255, (3, 40, 50), np.uint8),
        spaces.Box(0, 1, (4, 12, 12)),
        spaces.Dict(a=spaces.Box(0, 255, (1, 36, 36), np.uint8), b=spaces.Box(-1, 1, (2,)), c=spaces.Discrete(3)),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "actions", [spaces.Discrete(30), spaces.MultiDiscrete([2, 3]), spaces.Box(-2, 1, (2,))], ids=str
)
def test_any_observation_and_action_can_be_drawn(shown, actions):
    class Anything(Counter):
        observation_space, action_space = shown, actions
        render_mode, metadata = "rgb_array", {"render_modes": ["rgb_array"]}

        def reset(self, **kwargs):
            return shown.sample(), {}

        def step(self, action):
            return shown.sample(), 1.0, False, False, {}

        def render(self):
            return np.full((60, 100, 3), 200, np.uint8)

    env = DummyVecEnv([lambda: Anything(9)])
    model = MemoryPPO("MemoryPolicy", env, policy_kwargs=POLICY, n_steps=8)
    moment = next(play(model, env, inside=True, camera=True))
    scene = Scene(env.observation_space, actions, moment.frames[0], 2.0)
    picture = scene.put(scene.draw(moment), moment.frames[0])
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0
    top = scene.gap + scene.line
    assert (picture[top : top + 120, scene.gap : scene.gap + 200] == 200).all()
    assert len(np.unique(picture[:, scene.gap + 200 :].reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete", "multi_binary"])
def test_actions_that_are_not_allowed_are_not_probable(actions):
    env = make_vec_env("relmem/RepeatFirstAllowed-v0", 1, seed=0, env_kwargs={"actions": actions})
    model = MemoryPPO("MemoryPolicy", env, policy_kwargs=POLICY, n_steps=8)
    moments = [moment for moment, _ in zip(play(model, env, inside=True), range(16), strict=False)]
    chances = [[choice.max() for choice in moment.insight.probabilities] for moment in moments]
    sure = [min(chance) == 1 for chance in chances]
    assert sure == ([True] * 7 + [False]) * 2  # one action is allowed on the way, all are at the end


def test_films_of_environments_as_they_are_trained_on(tmp_path, capfd):
    run, core = tmp_path / "run", ["--core.name", "gru", "--core.hidden_size", "8"]
    options = ["--env.id", "CartPole-v1", "--env.frame_stack", "2", "--env.normalize", "true", "--eval.episodes", "1"]
    assert main(["train", *options, *core, "--smoke", "--run_dir", str(run)]) == 0
    film_ = ["--video", str(tmp_path / "film.gif"), "--seconds", "0.2", "--memory"]
    assert main(["record", str(run), *film_, "--env.backend", "subproc"]) == 0  # in this process all the same
    assert main(["evaluate", str(run), "--episodes", "1", "--json"]) == 0
    model = load(run)
    shown = next(play(model, make_vec_env("CartPole-v1", 1, frame_stack=2, seed=0))).observation
    raw = make_vec_env("CartPole-v1", 1, frame_stack=2, seed=0).reset()
    np.testing.assert_allclose(
        shown, model.normalized(make_vec_env("CartPole-v1", 1, frame_stack=2)).normalize_obs(raw)
    )
    assert not np.allclose(shown, raw)


# ---------------------------------------------------------------- enjoy


def test_enjoy_without_a_display_says_what_to_do(run, capfd, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert "there is no display here" in (said := refused(capfd, "enjoy", run)) and "relmem record" in said


def test_enjoy_on_a_display_that_is_not_there_plays_for_nobody(run, capfd, monkeypatch):
    pygame = pytest.importorskip("pygame")
    pygame.display.quit()
    for name in ("WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setattr("sys.platform", "linux")
    assert "no window can be opened" in refused(capfd, "enjoy", run)


def test_enjoy_plays_in_a_window_until_enough_episodes_have_ended(run, capfd, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert main(["enjoy", str(run), "--episodes", "2", "--memory", "--env.max_frames", "5"]) == 0
    assert capfd.readouterr().out.splitlines() == ["episode 1: return 5", "episode 2: return 5"]


def test_closing_the_window_ends_it(run, capfd, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame = pytest.importorskip("pygame")
    monkeypatch.setattr(pygame.event, "get", lambda: [pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q)])
    assert main(["enjoy", str(run), "--episodes", "99"]) == 0
    assert capfd.readouterr().out == ""


# ---------------------------------------------------------------- while training


def test_pictures_of_the_memory_in_tensorboard(tmp_path):
    options = ["--core.name", "stm", "--core.item_size", "6", "--core.queries", "2", "--core.relation_size", "3"]
    argv = ["train", "--env.id", CARTPOLE["id"], "--env.n_envs", "2", "--algo.n_steps", "32", *options]
    evaluation = ["--eval.every", "64", "--eval.episodes", "1", "--eval.memory", "true"]
    assert main([*argv, *evaluation, "--total_timesteps", "64", "--run_dir", str(tmp_path / "run")]) == 0
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()
    assert {"memory/memory", "memory/norms", "memory/saliency"} == set(tags["images"])
    assert {"memory/item_rank", "memory/relation_rank", "memory/relation_readout_rank"} <= set(tags["scalars"])


def test_pictures_of_the_memory_need_evaluations(capfd):
    assert "say with eval.every" in refused(capfd, "train", "--config", "pong/stm", "--eval.memory", "true")


def test_help_has_examples(capfd):
    for command in ("evaluate", "enjoy", "record"):
        assert main([command, "--help"]) == 0
        shown = capfd.readouterr().out
        assert f"examples:\n  relmem {command} runs/" in shown and max(map(len, shown.split("\n"))) <= 110
