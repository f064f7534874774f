// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/cuda_calls.h"

#include "shared/base/size.h"

namespace stoker::gpu {
namespace {

absl::StatusCode CodeOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::StatusCode::kResourceExhausted;
    case cudaErrorInvalidValue:
    case cudaErrorHostMemoryAlreadyRegistered:
    case cudaErrorHostMemoryNotRegistered:
    case cudaErrorInvalidResourceHandle:  // a stream of another device, say
      return absl::StatusCode::kInvalidArgument;
    case cudaErrorNotSupported:
    case cudaErrorNotPermitted:  // in a sandbox
    case cudaErrorDeviceUninitialized:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureIsolation:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorCapturedEvent:
      return absl::StatusCode::kFailedPrecondition;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
    case cudaErrorStubLibrary:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status ToStatus(cudaError_t error, absl::string_view call, uint64_t bytes) {
  if (error == cudaSuccess) return absl::OkStatus();
  (void)cudaGetLastError();
  return absl::Status(CodeOf(error), absl::StrCat(call, bytes > 0 ? absl::StrCat(" of ", FormatSize(bytes)) : "", ": ",
                                                  cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

absl::StatusOr<void*> FindDriverFunction(const char* name) {
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  void* address = nullptr;
  STOKER_RETURN_IF_ERROR(
      ToStatus(cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found), name));
  if (found != cudaDriverEntryPointSuccess) return absl::UnavailableError(absl::StrCat("the driver has no ", name));
  return address;
}

}  // namespace stoker::gpu
