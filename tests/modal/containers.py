"""Containers: Modal's own runtime with the deployed app, in processes of this machine."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from modal_proto import api_pb2 as api


class Containers:
    """Starts a process for each function that has inputs, as Modal starts a container.

    A process has no mounts: a variable of its image that is the path of a mount is replaced by a
    folder of this machine. A function that another `modal run` creates again uses the running
    container of its predecessor, to save the start.

    Attributes:
        mounts: a folder of this machine for each path in the container.
        folder: working directory of the processes.
        log: the output of all processes.
    """

    def __init__(self, plane: Any, folder: Path) -> None:
        self.mounts: dict[str, Path] = {}
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self._plane = plane
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def ensure(self, function: str) -> None:
        """Start a container for `function`, unless one runs for it or for an identical function."""
        image = self._environment(self._plane.functions[function])
        name = self._plane.functions[function].function_name
        for other, process in self._processes.items():
            theirs = self._plane.functions[other]
            if theirs.function_name == name and self._environment(theirs) == image:
                self._plane.share_inputs(other, function)
                assert process.poll() is None or self._plane.task_results, self.printed()
                return
        self._processes[function] = self._start(function)

    def wait(self, seconds: float = 60.0) -> list[int]:
        """Wait until all processes have ended; return their exit codes."""
        return [process.wait(seconds) for process in self._processes.values()]

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def _start(self, function: str) -> "subprocess.Popen[bytes]":
        task = f"ta-{function}"
        arguments = self.folder / f"{task}.arguments"
        arguments.write_bytes(self._arguments(task, function).SerializeToString())
        restored = self.folder / f"{task}.restored.json"
        restored.write_text("{}")
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "modal._container_entrypoint"],
                env={
                    **self._environment(self._plane.functions[function]),
                    "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
                    "MODAL_TASK_ID": task,
                    "MODAL_IS_REMOTE": "1",
                    "MODAL_ENABLE_SNAP_RESTORE": "1",
                    "MODAL_RESTORE_STATE_PATH": str(restored),
                    "MODAL_SERVER_URL": self._plane.url,
                },
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def _environment(self, function: api.Function) -> dict[str, str]:
        """Return the variables of the image and the secrets; of this machine only PATH."""
        made = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        for layer in self._plane.image_layers(function.image_id):
            for command in layer.dockerfile_commands:
                if command.startswith("ENV "):
                    made |= dict(pair.split("=", 1) for pair in shlex.split(command)[1:])
        for name, value in made.items():
            made[name] = str(self.mounts.get(value, value))
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
