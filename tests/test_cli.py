"""The command line's help and its errors: one line, exit status 2, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from branchtune.cli.main import COMMANDS, main
from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from tiny_run import write_config


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert max(map(len, text.splitlines())) <= 80


HELPS = """
import sys
from branchtune.cli.main import COMMANDS, main

heavy = {"torch", "torchvision", "lightning", "timm", "torchmetrics", "scipy", "matplotlib", "PIL"}
heavy |= {"huggingface_hub", "transformers", "torchao", "peft", "onnx", "datasets", "fastapi"}
for command in ("", *COMMANDS):
    try:
        main([*command.split(), "--help"])
    except SystemExit:
        pass
    found = heavy & set(sys.modules)
    if found:
        sys.exit(f"{command or 'branchtune'} --help imports {', '.join(sorted(found))}")
"""


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELPS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [command for command in COMMANDS if f"usage: branchtune {command} " not in done.stdout] == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "nyud"


@pytest.fixture
def config(tmp_path: Path, data: Path) -> Path:
    return write_config(tmp_path, data)


def refused(arguments: list[str], config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command line answers a mistake with; nothing is left behind."""
    status = main([argument.replace("{config}", str(config)) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.count("\n") == 1
    assert not (config.parent / "runs").exists()
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fot"], "did you mean 'fit'"),
        (["fit"], "needs a configuration file"),
        (["fit", "--quiet"], "give a configuration file first"),
        (["fit", "nowhere.yaml"], "no configuration file 'nowhere.yaml'"),
        (["fit", "--quiet", "{config}"], "the file comes first"),
        (["evaluate"], "required: run"),
        (["evaluate", "nowhere"], "nowhere is no run directory"),
        (["report"], "required: runs"),
        (["report", "nowhere"], "nowhere is no run directory"),
        (["predict", "nowhere", "nowhere"], "nowhere does not exist"),
        (["plan", "nowhere", "--budget=2"], "nowhere"),
        (["reference", "{config}", "--seeds=[a]"], "seeds: Expected a int. Got value: a"),
    ],
)
def test_commands_used_wrongly(
    arguments: list[str], expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(arguments, config, capsys)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--adaptor.r=3", "did you mean 'adapter'"),
        ("--data.batchsize=3", "did you mean 'data.batch_size'"),
        ("--data.batch_size=many", "data.batch_size"),
        ("--adapter.rank=3", "unknown argument of branchtune.LoRA 'rank': did"),
        ("--tasks.depth.init_args.weigth=2", "did you mean 'weight'"),
        ("--data.augmentation.flop=1", "did you mean 'flip'"),
        ("--data.augmentation.flip=3", "augmentation flip=3.0: a probability"),
        ("--adapter=branchtune.LoRa", "did you mean 'branchtune.LoRA'"),
        ("--optimizer=AdaTsk", "did you mean 'branchtune.AdaTask'"),
        ("--method=brached", "method: Expected one of 'branched'"),
        ("--tree.groups=[1,a]", "tree.groups: Expected a int. Got value: a"),
        ("--early_stopping=never", "early_stopping: Expected a int. Got value: never\n"),
        ("--tree.budget=low", "tree.budget: Expected a float. Got value: low\n"),
        ("--data.image_size=[32]", "data.image_size: Expected a tuple with 2 elements"),
        ("--tasks={}", "tasks is empty"),
        ("--tasks={x: {class_path: branchtune.Depht}}", "did you mean 'branchtune.Depth'"),
        ("--tasks={x: {class_path: foo.Bar}}", "No module named 'foo'"),
        ("--tasks={x: {class_path: branchtune.Depth, init_args: {name: y}}}", "tasks.x has the name 'y'"),
        ("--tasks={image: {class_path: branchtune.Depth, init_args: {name: image}}}", "cannot be named 'image'"),
        ("--tasks={a.b: {class_path: branchtune.Depth, init_args: {name: a.b}}}", "task name 'a.b'"),
        ("--tasks={deth: {class_path: branchtune.Depth, init_args: {name: deth}}}", "did you mean 'depth'"),
        ("--name=", "name is empty"),
        ("--name=../escaped", "name='../escaped' leaves output"),
        ("--name=a/../../escaped", "leaves output"),
        ("--name=a//b", "leaves output"),
        ("--name=/tmp/escaped", "name='/tmp/escaped' leaves output"),
        ("--name=..\\\\escaped", "leaves output"),
    ],
)
def test_keys_and_classes_that_do_not_exist(
    argument: str, expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(["fit", "{config}", argument], config, capsys)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--data.batch_size=0", "data.batch_size=0: must be at least 1"),
        ("--data.train_size=0", "data.train_size=0"),
        ("--data.val_size=-1", "data.val_size=-1"),
        ("--data.workers=-1", "data.workers=-1: must be at least 0"),
        ("--data.image_size=[0,32]", "data.image_size=[0, 32]"),
        ("--affinity.samples=1", "affinity.samples=1: must be at least 2"),
        ("--decoder_fit.steps=-1", "decoder_fit.steps=-1"),
        ("--decoder_fit.lr=0", "decoder_fit.lr=0.0"),
        ("--optimizer.lr=-1", "lr must be a finite number above 0"),
        ("--seed=-1", "seed=-1: must be at least 0"),
        ("--early_stopping=0", "early_stopping=0: must be at least 1"),
        ("--adapter.r=0", "rank must be at least 1"),
        ("--trainer.max_epochs=0", "trainer.max_epochs=0: must be a number of at least 1"),
        ("--trainer.max_epochs=x", "trainer.max_epochs='x'"),
        ("--trainer.max_epochs=null", "no end of the training"),
        ("--trainer.max_epoch=3", "did you mean 'max_epochs'"),
        ("--trainer.precision=33", "trainer.precision=33: a run takes 32-true, bf16-mixed or 16-mixed"),
        ("--trainer.limit_train_batches=0", "nothing to train on"),
        ("--trainer.val_check_interval=0.5", "between epochs only"),
        ("--trainer.devices=0", "trainer.devices=0: give how many"),
        ("--trainer.accelerator=tpu", "unknown trainer.accelerator 'tpu'"),
        ("--trainer.callbacks=[]", "trainer.callbacks is not yours to set"),
        ("--trainer.logger=true", "name loggers under the key loggers"),
        ("--loggers=[CSVLoger]", "did you mean 'CSVLogger'"),
        ("--extras=[norm]", "did you mean 'norms'"),
        ("--data.root=null", "data.root"),
        ("--data.root=nowhere", "nowhere"),
        ("--data.kind=scenes", "data.train_size is not set"),
        ("--data.image_size=[30,30]", "30x30"),
        ("--reference=nowhere.json", "nowhere.json"),
        ("--backbone.name=swin_tinny_patch4_window7_224", "did you mean 'swin_tiny_patch4_window7_224'"),
        ("--backbone.levels=[blocks.99]", "blocks.99"),
        ("--backbone.kwargs={foo: 3}", "foo=3"),
        ("--adapter.target_modules=[nothing]", "unknown target module 'nothing'"),
        ("--output=/dev/null", "/dev/null"),
        ("--data.train_size=1", "1 training image: affinity compares"),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_written(
    argument: str, expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(["fit", "{config}", argument], config, capsys)


ALL = "[depth,edge,normals,semseg]"


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("{}", "no tree is chosen"),
        ("{groups: [1, 2]}", "level 3"),
        ("{groups: [1, 2, 1, 4]}", "decreases"),
        ("{groups: [1, 1, 1, 9]}", "between 1 and 4 groups"),
        ("{groups: [1, 1, 2, 4], budget: 2}", "give one or the other"),
        (f"{{groups: [1, 1, 2, 4], levels: [[{ALL}]]}}", "tree.levels is the whole tree"),
        ("{budget: 0.5}", "infeasible budget=0.5 (at least 1."),
        ("{budget_params: 5}", "infeasible budget_params=5"),
        (f"{{levels: [[{ALL}]]}}", "the tree has 1 levels"),
        (f"{{levels: [[{ALL}], [[depth,edge]], [{ALL}], [{ALL}]]}}", "level 1 of the tree misses task"),
        (f"{{levels: [[[depth,{ALL[1:]}], [{ALL}], [{ALL}], [{ALL}]]}}", "repeats task 'depth'"),
        (f"{{levels: [[[depth],[edge,normals,semseg]], [{ALL}], [{ALL}], [{ALL}]]}}", "does not refine level 0"),
        ("{levels: [[[deph]], [[deph]], [[deph]], [[deph]]]}", "did you mean 'depth'"),
    ],
)
def test_trees_that_cannot_be(tree: str, expected: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = config.with_name("tree.yaml")
    written.write_text(config.read_text().replace("tree: {groups: [1, 1, 2, 4]}", f"tree: {tree}"))
    assert expected in refused(["fit", str(written)], config, capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--optimizer=branchtune.AdaTask", "--trainer.precision=16-mixed"], "use bf16-mixed"),
        (["--optimizer=branchtune.AdaTask", "--trainer.gradient_clip_algorithm=value"], "clips by norm only"),
        (["--evaluate=best", "--trainer.limit_val_batches=0"], "evaluate=best needs validation"),
        (["--early_stopping=2", "--trainer.limit_val_batches=0"], "early_stopping=2 needs validation"),
        (
            ["--evaluate=best", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=5"],
            "evaluate=best needs validation, and none of 3 epochs is followed by one: set",
        ),
        (["--trainer.max_steps=5", "--trainer.max_epochs=x"], "max_epochs"),
        (["--trainer.precision=bf16-true"], "takes 32-true, bf16-mixed or 16-mixed"),
        (["--trainer.precision=64"], "trainer.precision=64: a run takes"),
    ],
)
def test_keys_that_exclude_each_other(
    arguments: list[str], expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(["fit", "{config}", *arguments], config, capsys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\ntasks: {a: [1, 2\nfoo: bar: baz\n", "broken.yaml, line 3, column"),
        ("- 1\n", "broken.yaml holds no keys"),
        ("", "broken.yaml holds no keys"),
        ("name: x\n", "no tasks"),
        (b"\xff\xfe\x00\x01", "broken.yaml cannot be read as YAML"),
    ],
)
def test_configuration_files_that_are_not_yaml(
    text: str | bytes, expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = config.with_name("broken.yaml")
    broken.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert expected in refused(["fit", str(broken)], config, capsys)


def test_an_empty_split_and_a_missing_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    (tmp_path / "nyud" / "depth" / "0002.npy").unlink()
    assert "1 file of split 'train' is missing (depth/0002.npy)" in refused(["fit", "{config}"], config, capsys)
    (tmp_path / "nyud" / "gt_sets" / "train.txt").write_text("")
    assert "train.txt: the split is empty" in refused(["fit", "{config}"], config, capsys)


def test_a_reference_without_a_task_or_with_a_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    values = {"semseg": 0.4, "depth": 1.0, "normals": 20.0}
    Reference("ours", values).save(tmp_path / "reference.json")
    argument = f"--reference={tmp_path / 'reference.json'}"
    expected = "'ours' has no value for task 'edge': delete tasks.edge from the configuration, or set --reference null"
    assert expected in refused(["fit", "{config}", argument], config, capsys)
    Reference("ours", {**values, "edge": 0.0}).save(tmp_path / "reference.json")
    assert "task 'edge': the reference is 0.0" in refused(["fit", "{config}", argument], config, capsys)


def test_help_and_print_config_end_well_and_print_no_warning(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for option in ("--help", "--print_config"):
        with pytest.raises(SystemExit) as stop:
            main(["fit", str(config), option])
        assert stop.value.code == 0
        captured = capsys.readouterr()
        assert not captured.err
    printed = tmp_path / "printed.yaml"
    printed.write_text(captured.out)
    assert "no run directory" in refused(["evaluate", str(printed)], config, capsys)
    with pytest.raises(SystemExit):
        main(["fit", str(printed), "--print_config"])
    assert capsys.readouterr().out == captured.out


@pytest.mark.parametrize(
    ("command", "error", "status", "line"),
    [
        ("fit", KeyboardInterrupt(), 130, "branchtune: interrupted; the same command continues the run\n"),
        ("evaluate", KeyboardInterrupt(), 130, "branchtune: interrupted\n"),
        ("predict", KeyboardInterrupt(), 130, "branchtune: interrupted; the same command continues the run\n"),
        ("predict --overwrite", KeyboardInterrupt(), 130, "branchtune: interrupted\n"),
        (
            "demo",
            OSError(28, "No space left on device", "runs/x"),
            2,
            "branchtune: runs/x: No space left on device; free some space there; the same command continues the run\n",
        ),
        ("plan", OSError(13, "Permission denied", "x"), 2, "x: Permission denied; give yourself permission there\n"),
        ("evaluate", OSError(5, "Input/output error"), 2, "branchtune: Input/output error\n"),
        (
            "evaluate",
            UserError("Caught UserError in ...\nTraceback ...\nx.UserError: label.png: value 7\n"),
            2,
            "label.png: value 7",
        ),
        ("evaluate", UserError("two\nlines"), 2, "branchtune: two lines\n"),
    ],
)
def test_errors_end_as_one_line_and_a_status(
    command: str,
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(argv: list[str]) -> None:
        raise error

    command, *options = command.split()
    monkeypatch.setattr(f"branchtune.cli.{command}.run", fail)
    assert main([command, "x", *options]) == status
    printed = capsys.readouterr().err
    assert line in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("arguments", ["'--help'", "'fit', '--help'", "'evaluate', 'x'"])
def test_a_reader_that_goes_away_is_no_error(arguments: str) -> None:
    code = (
        "import sys, branchtune.cli.evaluate as command\n"
        "from branchtune.cli.main import main\n"
        "from branchtune.progress import Reporter\n"
        "command.run = lambda argv: Reporter(quiet=True).say('depth: rmse 1')\n"
        f"sys.exit(main([{arguments}]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait() in (0, 141)  # argparse ignores that its help is not read


def test_the_demos_help_explains_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--train-all, --train_all train every column, and the reference, on this machine" in text


def test_both_spellings_of_an_option_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--train-all", "--train_all"):
        with pytest.raises(SystemExit) as stop:
            main(["demo", option, "--print_config"])
        assert stop.value.code == 0
        assert "train_all: true" in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["--adapter=Bottleneck", "--decoder=HRNetDecoder", "--optimizer=AdaTask"])
def test_families_may_be_named_without_their_module(
    argument: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(config), argument, "--print_config"])
    assert stop.value.code == 0
    assert f"class_path: branchtune.{argument.partition('=')[2]}" in capsys.readouterr().out
