// SPDX-License-Identifier: Apache-2.0
// The runtimes that a suite runs on: "host" everywhere, "cuda" where there is a device; there tests skip with the
// reason.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "client/gpu/cuda_runtime.h"
#include "client/gpu/host_runtime.h"
#include "tests/support/status_matchers.h"

namespace stoker::gpu {

class OnRuntime : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "host") {
      // Slow and out of order, as a device may be.
      runtime_ = HostRuntime::Create({.seed = 1, .max_delay = absl::Microseconds(200)});
      return;
    }
    absl::StatusOr<std::unique_ptr<DeviceRuntime>> cuda = OpenCudaRuntime(0);
    if (absl::IsUnavailable(cuda.status())) GTEST_SKIP() << cuda.status();
    ASSERT_OK(cuda);  // there is a device, and it fails
    runtime_ = *std::move(cuda);
  }

  OwnedQueue NewQueue() { return *OwnQueue(*runtime_); }
  OwnedEvent NewEvent() { return *OwnEvent(*runtime_); }

  // Host memory to the device and back, by a queue of its own, all waited for.
  DeviceMemory ToDevice(const void* from, uint64_t bytes) {
    DeviceMemory device(runtime_.get(), *runtime_->Allocate(bytes));
    if (bytes == 0) return device;
    const PinnedMemory pinned(runtime_.get(), *runtime_->AllocateHost(bytes));
    std::memcpy(pinned.get(), from, bytes);
    const OwnedQueue queue = NewQueue();
    EXPECT_OK(runtime_->CopyToDevice(queue.get(), device.get(), pinned.get(), bytes));
    EXPECT_OK(runtime_->Drain(queue.get()));
    return device;
  }
  template <typename T>
  DeviceMemory ToDevice(const std::vector<T>& from) {
    return ToDevice(from.data(), from.size() * sizeof(T));
  }
  std::vector<uint8_t> ToHost(const void* device, uint64_t bytes) {
    const OwnedQueue queue = NewQueue();
    return ToHost(queue.get(), device, bytes);
  }
  // After what is in the queue.
  std::vector<uint8_t> ToHost(Queue queue, const void* device, uint64_t bytes) {
    std::vector<uint8_t> result(bytes);
    if (bytes == 0) return result;
    const PinnedMemory pinned(runtime_.get(), *runtime_->AllocateHost(bytes));
    EXPECT_OK(runtime_->CopyToHost(queue, pinned.get(), device, bytes));
    EXPECT_OK(runtime_->Drain(queue));
    std::memcpy(result.data(), pinned.get(), bytes);
    return result;
  }

  std::shared_ptr<DeviceRuntime> runtime_;
};

inline std::string RuntimeName(const ::testing::TestParamInfo<std::string>& info) { return info.param; }

}  // namespace stoker::gpu

#define STOKER_ON_ALL_RUNTIMES(Suite) \
  INSTANTIATE_TEST_SUITE_P(Runtimes, Suite, ::testing::Values("host", "cuda"), ::stoker::gpu::RuntimeName)
