"""The calls of `modal deploy` and `modal run`, which create objects; keeps what was sent."""

import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import empty_pb2
from grpclib import GRPCError, Status
from modal_proto import api_pb2 as api
from volumes import files_below

IMAGE_BUILDER = "2025.06"


class DeployCalls:
    """Apps, secrets, volumes, mounts, images, functions, classes.

    Attributes:
        secrets: values of each named secret.
        secret_values: values of each secret, by its id.
        required_keys: keys that a function requires of each named secret.
        functions: message of FunctionCreate, by the function's id.
        bound: message of FunctionBindParams, by the variant's id.
        class_ids: id of each class, by its name.
        app: message of AppCreate.
        published: message of AppPublish, once an app is deployed.
        rollbacks: versions that were rolled back to.
        rollovers: number of rollovers.
        others: messages of all other objects, by their ids.
    """

    containers: Any

    def __init__(self, secrets: dict[str, dict[str, str]]) -> None:
        self.secrets = dict(secrets)
        self.secret_values: dict[str, dict[str, str]] = {}
        self.functions: dict[str, api.Function] = {}
        self.others: dict[str, Any] = {}
        self.required_keys: dict[str, list[str]] = {}
        self.class_ids: dict[str, str] = {}
        self.bound: dict[str, api.FunctionBindParamsRequest] = {}
        self.app: api.AppCreateRequest | None = None
        self.rollbacks: list[int] = []
        self.rollovers = 0
        self.published: api.AppPublishRequest | None = None
        self._numbers = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._numbers)}"

    def function(self, name: str) -> api.Function:
        """Return the last message that was sent for the function called `name`."""
        return self.functions[self.function_id(name)]

    def function_id(self, name: str) -> str:
        return [id_ for id_, f in self.functions.items() if f.function_name == name][-1]

    # Apps

    def AppGetByDeploymentName(self, request: Any) -> Any:
        if self.published is None:
            return api.AppGetByDeploymentNameResponse()
        lifecycle = api.AppLifecycle(app_state=api.APP_STATE_DEPLOYED)
        return api.AppGetByDeploymentNameResponse(app_id="ap-1", lifecycle=lifecycle)

    def AppGetLayout(self, request: Any) -> Any:
        return api.AppGetLayoutResponse()  # every deployment creates new functions

    def AppDeploymentHistory(self, request: Any) -> Any:
        one = api.AppDeploymentHistory(app_id="ap-1", version=2, deployed_at=time.time())
        return api.AppDeploymentHistoryResponse(app_deployment_histories=[one])

    def AppRollover(self, request: Any) -> Any:
        self.rollovers += 1

    def AppRollback(self, request: Any) -> Any:
        self.rollbacks.append(request.version)

    def AppCreate(self, request: Any) -> Any:
        self.app = request
        return api.AppCreateResponse(app_id="ap-1", app_page_url="http://127.0.0.1/ap-1")

    def AppHeartbeat(self, request: Any) -> Any:
        return empty_pb2.Empty()

    def AppClientDisconnect(self, request: Any) -> Any:
        return empty_pb2.Empty()

    def AppPublish(self, request: Any) -> Any:
        self.published = request
        return api.AppPublishResponse(url="http://127.0.0.1/ap-1", deployed_at=time.time())

    def EnvironmentGetOrCreate(self, request: Any) -> Any:
        settings = api.EnvironmentSettings(image_builder_version=IMAGE_BUILDER)
        metadata = api.EnvironmentMetadata(name="main", settings=settings)
        return api.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)

    # Objects that functions use

    def SecretGetOrCreate(self, request: Any) -> Any:
        name = request.deployment_name
        if name and request.env_dict:
            self.secrets[name] = dict(request.env_dict)
        if name and name not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found")
        values = self.secrets[name] if name else dict(request.env_dict)
        missing = sorted(set(request.required_keys) - set(values))
        if missing:
            raise GRPCError(Status.FAILED_PRECONDITION, f"Secret '{name}' has no key {missing}")
        secret = self.new_id("st")
        self.others[secret] = request
        self.secret_values[secret] = values
        self.required_keys[name] = list(request.required_keys)
        return api.SecretGetOrCreateResponse(secret_id=secret)

    def VolumeGetOrCreate(self, request: Any) -> Any:
        volume = self.new_id("vo")
        self.others[volume] = request
        metadata = api.VolumeMetadata(version=request.version, name=request.deployment_name)
        return api.VolumeGetOrCreateResponse(
            volume_id=volume, version=request.version, metadata=metadata
        )

    async def VolumeListFiles(self, request: Any) -> AsyncIterator[Any]:
        volume = self.containers.volumes.committed(self.others[request.volume_id].deployment_name)
        files = files_below(volume / request.path)
        if not files:
            raise GRPCError(Status.NOT_FOUND, f"no such file or directory: {request.path}")
        yield api.VolumeListFilesResponse(
            entries=[
                api.FileEntry(path=f"{request.path}/{file}", type=api.FileEntry.FILE)
                for file in files
            ]
        )

    def MountBatchedCheckExistence(self, request: Any) -> Any:
        return api.MountBatchedCheckExistenceResponse()  # as if no file had to be uploaded

    def MountGetOrCreate(self, request: Any) -> Any:
        mount = self.new_id("mo")
        self.others[mount] = request
        metadata = api.MountHandleMetadata(content_checksum_sha256_hex="0" * 64)
        return api.MountGetOrCreateResponse(mount_id=mount, handle_metadata=metadata)

    def ImageGetOrCreate(self, request: Any) -> Any:
        image = self.new_id("im")
        self.others[image] = request.image
        return api.ImageGetOrCreateResponse(
            image_id=image,
            result=api.GenericResult(status=api.GenericResult.GENERIC_STATUS_SUCCESS),
            metadata=api.ImageMetadata(image_builder_version=IMAGE_BUILDER),
        )

    def image_layers(self, image: str) -> list[api.Image]:
        """Return the layers of an image, the lowest one first."""
        layer = self.others[image]
        below = [base.image_id for base in layer.base_images]
        return [*(self.image_layers(below[0]) if below else []), layer]

    # Functions and classes

    def FunctionPrecreate(self, request: Any) -> Any:
        function = self.new_id("fu")
        return api.FunctionPrecreateResponse(
            function_id=function, handle_metadata=self.handle_of(function, request)
        )

    def FunctionCreate(self, request: Any) -> Any:
        function, id_ = request.function, request.existing_function_id
        self.functions[id_] = function
        ranked = [api.FunctionData.RankedFunction(rank=0, function=function)]
        return api.FunctionCreateResponse(
            function_id=id_,
            function=function,
            function_data=api.FunctionData(ranked_functions=ranked),
            handle_metadata=self.handle_of(id_, function),
        )

    def ClassCreate(self, request: Any) -> Any:
        self.class_ids["Embeddings"] = "cs-1"
        return api.ClassCreateResponse(class_id="cs-1", handle_metadata=api.ClassHandleMetadata())

    def FunctionBindParams(self, request: Any) -> Any:
        """Create the variant that `with_options` and the constructor request."""
        base, bound = self.functions[request.function_id], self.new_id("fu")
        variant = api.Function()
        variant.CopyFrom(base)
        options = request.function_options
        if options.replace_volume_mounts:
            del variant.volume_mounts[:]
            variant.volume_mounts.extend(options.volume_mounts)
        if options.replace_cloud_bucket_mounts:
            del variant.cloud_bucket_mounts[:]
            variant.cloud_bucket_mounts.extend(options.cloud_bucket_mounts)
        if options.HasField("timeout_secs"):
            variant.timeout_secs = options.timeout_secs
        self.functions[bound] = variant
        self.bound[bound] = request
        return api.FunctionBindParamsResponse(
            bound_function_id=bound, handle_metadata=self.handle_of(bound, variant)
        )

    def handle_of(self, id_: str, function: Any) -> api.FunctionHandleMetadata:
        """Return what a client learns about a function and its methods."""
        methods = {
            name: api.FunctionHandleMetadata(
                function_name=method.function_name,
                function_type=method.function_type,
                is_method=True,
                use_method_name=name,
                web_url=_web_url(method.webhook_config),
            )
            for name, method in function.method_definitions.items()
        }
        return api.FunctionHandleMetadata(
            function_name=function.function_name,
            function_type=function.function_type,
            definition_id=f"de-{id_}",
            web_url=_web_url(function.webhook_config),
            method_handle_metadata=methods,
        )


def _web_url(webhook: api.WebhookConfig) -> str:
    return f"https://workspace--{webhook.requested_suffix}.modal.run" if webhook.type else ""
