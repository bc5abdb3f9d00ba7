"""Containers: Modal's own runtime with the deployed app, in processes of this machine."""

import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from modal_cli import ROOT
from modal_proto import api_pb2 as api
from volumes import Volumes

TESTS = Path(__file__).parents[1]
TASK_HEADER = "x-task"
"""Tells the control plane which container calls."""


def run_alone(
    script: str, *arguments: str, folder: Path, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a script that makes a container in a process of its own, without Modal's runtime."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{TESTS}:{TESTS.parent / 'src'}",
            "SERVICE_API_KEY": "key",
            **variables,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Containers:
    """Starts a process for each function that has inputs, as Modal starts a container.

    A process has no mounts: a variable of its image that is the path of a mount is replaced by a
    folder of this machine, for a volume by a copy that is the container's own. A function that
    another `modal run` creates again uses the running container of its predecessor, to save the
    start.

    Attributes:
        mounts: a folder of this machine for each path in the container that is no volume's.
        volumes: what is in the volumes.
        folder: working directory of the processes.
        log: the output of all processes.
        tasks: the function that each container runs, by its task.
    """

    def __init__(self, plane: Any, folder: Path) -> None:
        self.mounts: dict[str, Path] = {}
        self.folder = folder
        self.volumes = Volumes(folder / "volumes")
        self.log = folder / "log"
        self.log.touch()
        self.tasks: dict[str, str] = {}
        self._plane = plane
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count(1)

    def ensure(self, function: str) -> None:
        """Start a container for `function`, unless one runs for it or for an identical function."""
        image = self._environment(self._plane.functions[function])
        name = self._plane.functions[function].function_name
        for task, other in self.tasks.items():
            theirs = self._plane.functions[other]
            if theirs.function_name == name and self._environment(theirs) == image:
                self._plane.share_inputs(other, function)
                ended = self._processes[task].poll() is not None
                assert not ended or self._plane.task_results, self.printed()
                return
        self.start(function)

    def start(self, function: str, *, frozen: bool = False) -> str:
        """Start a container for `function`, whatever runs already; return its task.

        With `frozen`, it stops where its snapshot is taken, until `restore`.
        """
        task = f"ta-{next(self._numbers)}"
        self.tasks[task] = function
        self._processes[task] = self._start(task, function)
        if not frozen:
            self.restore(task)
        return task

    def restore(self, task: str) -> None:
        """Let a container go on after its snapshot, as one does that starts from it."""
        (self.folder / f"{task}.restored.json").write_text("{}")

    def running(self, function: str) -> list[str]:
        """Return the tasks of the containers that run the function called `function`."""
        return [
            task
            for task, id_ in self.tasks.items()
            if self._plane.functions[id_].function_name == function
        ]

    def opened(self, task: str) -> list[str]:
        """Return the files of its volume that a container has open."""
        below = str(self.volumes.copy_of(task))
        descriptors = Path(f"/proc/{self._processes[task].pid}/fd")
        files = [str(one.readlink()) for one in descriptors.iterdir() if one.is_symlink()]
        return [file for file in files if file.startswith(below)]

    def wait(self, seconds: float = 60.0) -> list[int]:
        """Wait until all processes have ended; return their exit codes."""
        return [process.wait(seconds) for process in self._processes.values()]

    def kill(self, *tasks: str) -> None:
        """Kill the containers of `tasks`, or all; what they had not committed is lost."""
        for task in tasks or list(self.tasks):
            process = self._processes.pop(task)
            process.kill()
            process.wait()
            del self.tasks[task]

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def _start(self, task: str, function: str) -> "subprocess.Popen[bytes]":
        made = self._plane.functions[function]
        volumes = {
            mount.mount_path: self.volumes.mount(
                task, self._plane.others[mount.volume_id].deployment_name
            )
            for mount in made.volume_mounts
        }
        arguments = self.folder / f"{task}.arguments"
        arguments.write_bytes(self._arguments(task, function).SerializeToString())
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "modal._container_entrypoint"],
                env={
                    **self._environment(made, volumes),
                    "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
                    "MODAL_TASK_ID": task,
                    "MODAL_IS_REMOTE": "1",
                    "MODAL_ENABLE_SNAP_RESTORE": "1",
                    "MODAL_RESTORE_STATE_PATH": str(self.folder / f"{task}.restored.json"),
                    "MODAL_SERVER_URL": self._plane.url,
                    "MODAL_OVERRIDE_HEADERS": f"{TASK_HEADER}:{task}",
                },
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def _environment(
        self, function: api.Function, volumes: dict[str, Path] | None = None
    ) -> dict[str, str]:
        """Return the variables of the image and the secrets; of this machine only PATH."""
        made = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT / "src"),  # Modal mounts it
            "PYTHONUNBUFFERED": "1",
        }
        for layer in self._plane.image_layers(function.image_id):
            for command in layer.dockerfile_commands:
                if command.startswith("ENV "):
                    made |= dict(pair.split("=", 1) for pair in shlex.split(command)[1:])
        mounts = {**self.mounts, **(volumes or {})}
        for name, value in made.items():
            made[name] = str(mounts.get(value, value))
        for secret in function.secret_ids:
            made |= self._plane.secret_values[secret]
        return made

    def _arguments(self, task: str, id_: str) -> api.ContainerArguments:
        function = api.Function()
        function.CopyFrom(self._plane.functions[id_])
        function.is_checkpointing_function = function.checkpointing_enabled
        return api.ContainerArguments(
            task_id=task,
            function_id=id_,
            app_id="ap-1",
            environment_name="main",
            function_def=function,
            checkpoint_id=f"ch-{id_}",
            app_layout=self._layout(function),
        )

    def _layout(self, function: api.Function) -> api.AppLayout:
        plane, layout = self._plane, api.AppLayout()
        ids = {f.function_name: id_ for id_, f in reversed(plane.functions.items())}
        layout.function_ids.update(ids)
        layout.class_ids.update(plane.class_ids)
        for id_ in ids.values():
            metadata = plane.handle_of(id_, plane.functions[id_])
            layout.objects.append(api.Object(object_id=id_, function_handle_metadata=metadata))
        for id_ in plane.class_ids.values():
            layout.objects.append(
                api.Object(object_id=id_, class_handle_metadata=api.ClassHandleMetadata())
            )
        known = {one.object_id for one in layout.objects}
        for dependency in function.object_dependencies:
            if dependency.object_id not in known:
                layout.objects.append(_object(dependency.object_id))
        return layout


def _object(id_: str) -> api.Object:
    if id_.startswith("vo-"):
        return api.Object(object_id=id_, volume_metadata=api.VolumeMetadata(version=2))
    if id_.startswith("mo-"):
        return api.Object(object_id=id_, mount_handle_metadata=api.MountHandleMetadata())
    return api.Object(object_id=id_)
