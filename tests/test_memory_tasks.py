"""The benchmark of memory tasks: its plan, its files, and its tables."""

import csv

import numpy as np
import pytest

import lstmx
from benchmarks import memory_tasks
from benchmarks.memory_runs import FULL, MODELS, QUICK, horizon, load, plan, save, sized
from benchmarks.memory_table import markdown, write_csv


def results(run, final_loss=0.1, **others):
    return {
        "problem": run.problem,
        "task": f"the task {run.problem}",
        "model": run.model,
        "seed": run.seed,
        "settings": run.settings,
        "units": 8,
        "parameters": 1234,
        "length": 100,
        "metric": "cross_entropy",
        "baseline": 0.5,
        "baseline_name": "no memory",
        "horizon_before": 12.0,
        "diverged_at": None,
        "validation_loss": [1.0, final_loss],
        "final_loss": final_loss,
        "accuracy": 0.75,
        "steps_to_half": 20.0,
        "horizon_after": None,
    } | others


def runs_of(models, seeds=3):
    return plan({"copy-10": FULL["copy-10"]}, models, seeds, units=8)


def line(text, start):
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {start} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_plan_trains_every_cell_once_and_seeds_of_a_model_in_a_row():
    runs = plan(FULL, list(MODELS), 2, units=64)
    assert len(set(runs)) == len(runs) == len(FULL) * (len(MODELS) - 1) * 2  # NP is the LSTM
    assert [run.seed for run in runs[:4]] == [0, 1, 0, 1]
    cells = [MODELS[name].make(2, 8) for name in MODELS if name not in ("NP", "chrono")]
    assert len(set(cells)) == len(cells)
    assert MODELS["NP"].make(2, 8) == MODELS["LSTM"].make(2, 8)


def test_problems_say_the_length_of_their_sequences():
    for problem in [FULL["adding-200"], FULL["copy-100"], FULL["digits"], *QUICK.values()]:
        assert len(problem.make().validation.inputs) == problem.length


def test_models_have_nearly_equal_numbers_of_parameters():
    task = lstmx.tasks.adding_problem(10, 2)
    counts = [lstmx.Model(sized(run, task), 1).count() for run in plan(FULL, list(MODELS), 1, units=64)]
    np.testing.assert_allclose(counts, counts[0], rtol=0.02)


def test_a_run_is_kept_whole_or_not_at_all(tmp_path):
    (run,) = runs_of(["GRU"], 1)
    assert load(run, tmp_path) is None
    with pytest.raises(ValueError, match="Out of range float"):
        save(run, tmp_path, results(run, float("nan")))
    assert load(run, tmp_path) is None
    save(run, tmp_path, results(run))
    assert load(run, tmp_path) == results(run)
    assert [path.name for path in tmp_path.iterdir()] == ["copy-10.GRU.0.json"]
    with pytest.raises(ValueError, match=r"was made with .*'units': 8.*; choose another --output"):
        load(run._replace(units=16), tmp_path)


def test_finished_runs_are_not_done_again(tmp_path, monkeypatch, capsys):
    done = []

    def train(run, problem, task):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((run.model, run.seed))
        return results(run)

    monkeypatch.setattr(memory_tasks, "train", train)
    arguments = ["--quick", "--tasks", "copy-5", "--models", "LSTM,GRU", "--output", str(tmp_path)]
    memory_tasks.main(arguments)
    assert done == [("LSTM", 0), ("LSTM", 1), ("GRU", 0)]
    assert "interrupted: the same command goes on" in capsys.readouterr().out
    done.clear()
    memory_tasks.main(arguments)
    assert done == [("GRU", 1)]
    printed = capsys.readouterr().out
    assert "4 of 4 runs" in printed
    assert "all done" in printed
    memory_tasks.main([*arguments, "--hours", "0"])
    assert done == [("GRU", 1)]
    memory_tasks.main([*arguments, "--seeds", "3", "--hours", "0"])
    assert "0 hours are over: the same command goes on" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"results.md", "results.csv", "runs"}


def test_the_table_has_means_with_intervals_and_paired_differences():
    found = [
        results(run, {"V": 0.1, "NFG": 0.3, "CIFG": 0.1}[run.model] + 0.01 * run.seed)
        for run in runs_of(["V", "NFG", "CIFG"])
    ]
    for result in found:
        if result["model"] == "CIFG":
            result["final_loss"] += 0.05 * (1 - result["seed"])
    text = markdown(found, ["copy-10"], ["V", "NFG", "CIFG"], "this machine")
    assert text.startswith("this machine\n")
    assert "### the task copy-10: cross entropy, 4,000 steps" in text
    assert line(text, "V") == [
        "V",
        "8",
        "1,234",
        "0.11 [0.1, 0.12]",
        "",
        "75.0% [75.0%, 75.0%]",
        "20 (3 of 3)",
        "12",
        "> 100",
    ]
    assert line(text, "NFG less V")[2] == "+0.2 [+0.2, +0.2] worse"
    assert "most critical" in line(text, "NFG less V")[1]
    assert line(text, "CIFG less V")[2].endswith("unclear")
    assert "| *no memory* | | | 0.5 |" in text


def test_the_table_says_what_diverged_and_what_was_never_reached():
    first, *rest = [results(run, steps_to_half=None) for run in runs_of(["LSTM"])]
    gone = {
        key: first[key] for key in first if key not in ("final_loss", "accuracy", "steps_to_half", "horizon_after")
    }
    text = markdown([gone | {"diverged_at": 7}, *rest], ["copy-10"], ["LSTM", "NP"], "")
    assert line(text, "LSTM")[3] == "0.1 [0.1, 0.1] 1 of 3 diverged"
    assert line(text, "LSTM")[6] == "never"
    assert line(text, "NP (is LSTM)")[1:] == line(text, "LSTM")[1:]
    text = markdown([gone | {"diverged_at": 7}], ["copy-10"], ["LSTM"], "")
    assert line(text, "LSTM")[3:] == ["1 of 1 diverged", "", "", "never", "12", ""]


def test_the_csv_has_a_row_for_every_run(tmp_path):
    found = [results(run) for run in runs_of(["LSTM"])]
    write_csv(found, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["final_loss"]) == 0.1
    assert rows[0]["horizon_after"] == ""


@pytest.mark.slow
def test_the_horizon_is_that_of_the_last_outputs_loss():
    task = lstmx.tasks.adding_problem(60, 2)
    model = lstmx.Model(lstmx.SimpleRNN(2, 4), 1, "mean_squared_error")
    params = model.init(0, scheme=lstmx.schemes.identity(0.5))
    params = params._replace(cell=params.cell._replace(input_kernel=0 * params.cell.input_kernel))
    assert horizon(model, params, task) == 7  # the first k with 0.5ᵏ ≤ 0.01: zero input, so no unit saturates
    unit = params._replace(cell=params.cell._replace(recurrent_kernel=2 * params.cell.recurrent_kernel))
    assert horizon(model, unit, task) is None
