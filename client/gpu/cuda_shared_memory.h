// SPDX-License-Identifier: Apache-2.0
// Device memory that several processes map, by the driver's virtual memory management: an allocation is an object that
// its mappings and descriptors count, not a pointer that one process owns as cudaMalloc's is. So a process that dies
// takes nothing from the others, and none has to wait for others before it frees.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "shared/base/unique_fd.h"

namespace stoker::gpu {

// Thread-safe. The device's context must be current in each call.
class CudaSharedMemory {
 public:
  // FailedPrecondition when the device's memory cannot be given to other processes by descriptor.
  static absl::StatusOr<std::unique_ptr<CudaSharedMemory>> Create(CUdevice device);

  absl::StatusOr<void*> Allocate(uint64_t bytes);
  absl::StatusOr<UniqueFd> Export(void* device);
  absl::StatusOr<void*> Import(int memory, uint64_t bytes);
  // Unmaps what Allocate or Import gave; false when it is neither. REQUIRES: no operation that uses it is pending.
  bool Free(void* device);

 private:
  struct Calls {
    decltype(&cuDeviceGetAttribute) attribute;
    decltype(&cuMemGetAllocationGranularity) granularity;
    decltype(&cuMemCreate) create;
    decltype(&cuMemRelease) release;
    decltype(&cuMemAddressReserve) reserve;
    decltype(&cuMemAddressFree) free_address;
    decltype(&cuMemMap) map;
    decltype(&cuMemUnmap) unmap;
    decltype(&cuMemSetAccess) set_access;
    decltype(&cuMemExportToShareableHandle) export_handle;
    decltype(&cuMemImportFromShareableHandle) import_handle;
  };
  struct Mapping {
    CUmemGenericAllocationHandle handle;
    size_t size;
  };

  CudaSharedMemory(const Calls& calls, const CUmemAllocationProp& properties, size_t granularity)
      : calls_(calls), properties_(properties), granularity_(granularity) {}
  static absl::StatusOr<Calls> FindCalls();
  absl::StatusOr<void*> Map(CUmemGenericAllocationHandle handle, size_t size);
  absl::Status MapAt(CUdeviceptr address, CUmemGenericAllocationHandle handle, size_t size);

  const Calls calls_;
  const CUmemAllocationProp properties_;
  const size_t granularity_;
  absl::Mutex mu_;
  std::map<CUdeviceptr, Mapping> mappings_ ABSL_GUARDED_BY(mu_);
};

}  // namespace stoker::gpu
