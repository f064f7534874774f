// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/cuda_shared_memory.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "client/gpu/cuda_calls.h"
#include "shared/base/size.h"

namespace stoker::gpu {
namespace {

constexpr CUmemAllocationHandleType kDescriptor = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

void* ToPointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

}  // namespace

absl::StatusOr<CudaSharedMemory::Calls> CudaSharedMemory::FindCalls() {
  Calls calls = {};
  STOKER_RETURN_IF_ERROR(Find("cuDeviceGetAttribute", &calls.attribute));
  STOKER_RETURN_IF_ERROR(Find("cuMemGetAllocationGranularity", &calls.granularity));
  STOKER_RETURN_IF_ERROR(Find("cuMemCreate", &calls.create));
  STOKER_RETURN_IF_ERROR(Find("cuMemRelease", &calls.release));
  STOKER_RETURN_IF_ERROR(Find("cuMemAddressReserve", &calls.reserve));
  STOKER_RETURN_IF_ERROR(Find("cuMemAddressFree", &calls.free_address));
  STOKER_RETURN_IF_ERROR(Find("cuMemMap", &calls.map));
  STOKER_RETURN_IF_ERROR(Find("cuMemUnmap", &calls.unmap));
  STOKER_RETURN_IF_ERROR(Find("cuMemSetAccess", &calls.set_access));
  STOKER_RETURN_IF_ERROR(Find("cuMemExportToShareableHandle", &calls.export_handle));
  STOKER_RETURN_IF_ERROR(Find("cuMemImportFromShareableHandle", &calls.import_handle));
  return calls;
}

absl::StatusOr<std::unique_ptr<CudaSharedMemory>> CudaSharedMemory::Create(CUdevice device) {
  STOKER_ASSIGN_OR_RETURN(const Calls calls, FindCalls());
  int by_descriptor = 0;
  STOKER_RETURN_IF_ERROR(
      ToStatus(calls.attribute(&by_descriptor, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device),
               "cuDeviceGetAttribute"));
  if (by_descriptor == 0) {
    return absl::FailedPreconditionError("the device's memory cannot be given to other processes by descriptor");
  }
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.requestedHandleTypes = kDescriptor;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device;
  size_t granularity = 0;
  STOKER_RETURN_IF_ERROR(ToStatus(calls.granularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
                                  "cuMemGetAllocationGranularity"));
  return std::unique_ptr<CudaSharedMemory>(new CudaSharedMemory(calls, properties, granularity));
}

absl::StatusOr<void*> CudaSharedMemory::Allocate(uint64_t bytes) {
  const size_t size = AlignUp(std::max<uint64_t>(bytes, 1), granularity_);
  CUmemGenericAllocationHandle handle;
  STOKER_RETURN_IF_ERROR(ToStatus(calls_.create(&handle, size, &properties_, 0), "cuMemCreate", size));
  return Map(handle, size);
}

absl::StatusOr<void*> CudaSharedMemory::Import(int memory, uint64_t bytes) {
  CUmemGenericAllocationHandle handle;
  // The call takes the descriptor's number for a pointer.
  void* const descriptor = reinterpret_cast<void*>(static_cast<intptr_t>(memory));
  STOKER_RETURN_IF_ERROR(
      ToStatus(calls_.import_handle(&handle, descriptor, kDescriptor), "cuMemImportFromShareableHandle", bytes));
  return Map(handle, AlignUp(std::max<uint64_t>(bytes, 1), granularity_));
}

// Takes `handle`, on failure too.
absl::StatusOr<void*> CudaSharedMemory::Map(CUmemGenericAllocationHandle handle, size_t size) {
  CUdeviceptr address = 0;
  absl::Status status = ToStatus(calls_.reserve(&address, size, 0, 0, 0), "cuMemAddressReserve", size);
  if (status.ok()) {
    status = MapAt(address, handle, size);
    if (!status.ok()) (void)calls_.free_address(address, size);
  }
  if (!status.ok()) {
    (void)calls_.release(handle);
    return status;
  }
  absl::MutexLock lock(&mu_);
  mappings_[address] = {handle, size};
  return ToPointer(address);
}

absl::Status CudaSharedMemory::MapAt(CUdeviceptr address, CUmemGenericAllocationHandle handle, size_t size) {
  STOKER_RETURN_IF_ERROR(ToStatus(calls_.map(address, size, 0, handle, 0), "cuMemMap", size));
  const CUmemAccessDesc access = {properties_.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  absl::Status status = ToStatus(calls_.set_access(address, size, &access, 1), "cuMemSetAccess", size);
  if (!status.ok()) (void)calls_.unmap(address, size);
  return status;
}

absl::StatusOr<UniqueFd> CudaSharedMemory::Export(void* device) {
  absl::MutexLock lock(&mu_);
  const auto mapping = mappings_.find(reinterpret_cast<CUdeviceptr>(device));
  if (mapping == mappings_.end()) return absl::InvalidArgumentError("export: no exportable allocation begins there");
  int descriptor = -1;
  STOKER_RETURN_IF_ERROR(ToStatus(calls_.export_handle(&descriptor, mapping->second.handle, kDescriptor, 0),
                                  "cuMemExportToShareableHandle", mapping->second.size));
  ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);  // else a program that is started here holds the memory
  return UniqueFd(descriptor);
}

bool CudaSharedMemory::Free(void* device) {
  Mapping mapping;
  const auto address = reinterpret_cast<CUdeviceptr>(device);
  {
    absl::MutexLock lock(&mu_);
    const auto found = mappings_.find(address);
    if (found == mappings_.end()) return false;
    mapping = found->second;
    mappings_.erase(found);
  }
  // There is nothing to do about a failure, and at the end of a process CUDA may be gone.
  (void)calls_.unmap(address, mapping.size);
  (void)calls_.free_address(address, mapping.size);
  (void)calls_.release(mapping.handle);
  return true;
}

}  // namespace stoker::gpu
