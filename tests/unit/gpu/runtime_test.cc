// SPDX-License-Identifier: Apache-2.0
// What every device runtime promises.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>

#include <numeric>
#include <thread>

#include "absl/time/clock.h"
#include "tests/unit/gpu/runtimes.h"

namespace stoker::gpu {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class RuntimeTest : public OnRuntime {};
STOKER_ON_ALL_RUNTIMES(RuntimeTest);

TEST_P(RuntimeTest, Copies_ThereAndBack_OfOddSizes) {
  for (const uint64_t bytes : {1, 3, 255, 4097, 1 << 20}) {
    std::vector<uint8_t> values(bytes);
    std::iota(values.begin(), values.end(), uint8_t{7});
    const DeviceMemory device = ToDevice(values);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(device.get()) % kDeviceAlignment, 0u);
    EXPECT_EQ(ToHost(device.get(), bytes), values);
  }
}

TEST_P(RuntimeTest, MemoryThatIsNotPinned_IsRefused) {
  std::vector<uint8_t> values(4096, 1);
  const DeviceMemory device = ToDevice(values);
  const OwnedQueue queue = NewQueue();
  EXPECT_THAT(runtime_->CopyToDevice(queue.get(), device.get(), values.data(), 4096),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("pinned")));
  EXPECT_THAT(runtime_->CopyToHost(queue.get(), values.data(), device.get(), 4096),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4.00 KiB")));
}

TEST_P(RuntimeTest, RegisteredMemory_CanBeCopiedFrom_UntilItIsUnregistered) {
  std::unique_ptr<uint8_t, decltype(&::free)> pages(static_cast<uint8_t*>(::aligned_alloc(4096, 8192)), &::free);
  std::memset(pages.get(), 9, 8192);
  const DeviceMemory device(runtime_.get(), *runtime_->Allocate(8192));
  const OwnedQueue queue = NewQueue();
  {
    ASSERT_OK(runtime_->RegisterHost({pages.get(), 8192}));
    const Registration registration(runtime_.get(), pages.get());
    EXPECT_THAT(runtime_->RegisterHost({pages.get() + 4096, 4096}), StatusIs(absl::StatusCode::kInvalidArgument));
    ASSERT_OK(runtime_->CopyToDevice(queue.get(), device.get(), pages.get() + 100, 5000));
    ASSERT_OK(runtime_->Drain(queue.get()));
  }
  EXPECT_EQ(ToHost(device.get(), 5000), std::vector<uint8_t>(5000, 9));
  EXPECT_THAT(runtime_->CopyToDevice(queue.get(), device.get(), pages.get(), 1),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(RuntimeTest, Events_ComeInOrder_AndOrderQueues) {
  // Each queue adds its hop: a copy of what the queue before it made. Any order but the right one loses the value.
  constexpr int kHops = 40;
  constexpr size_t kBytes = 4096;
  std::vector<OwnedQueue> queues(4);
  std::vector<OwnedEvent> events;
  for (OwnedQueue& queue : queues) queue = NewQueue();
  const PinnedMemory pinned(runtime_.get(), *runtime_->AllocateHost(2 * kBytes));
  auto* const host = static_cast<uint8_t*>(pinned.get());
  std::memset(host, 0, 2 * kBytes);
  std::memset(host, 5, kBytes);
  std::vector<uint8_t> zeros(kBytes, 0);
  const DeviceMemory device = ToDevice(zeros);
  for (int hop = 0; hop < kHops; ++hop) {
    const Queue queue = queues[hop % 4].get();
    if (hop > 0) {
      ASSERT_OK(runtime_->QueueWait(queue, events.back().get()));
    }
    uint8_t* const from = host + (hop % 2 == 0 ? 0 : kBytes);
    uint8_t* const to = host + (hop % 2 == 0 ? kBytes : 0);
    ASSERT_OK(runtime_->CopyToDevice(queue, device.get(), from, kBytes));
    ASSERT_OK(runtime_->CopyToHost(queue, to, device.get(), kBytes));
    events.push_back(NewEvent());
    ASSERT_OK(runtime_->Record(events.back().get(), queue));
  }
  ASSERT_OK(runtime_->Wait(events.back().get(), absl::Seconds(30)));
  for (const OwnedEvent& event : events) EXPECT_THAT(runtime_->Query(event.get()), stoker::testing::IsOkAndHolds(true));
  EXPECT_EQ(std::vector<uint8_t>(host, host + 2 * kBytes), std::vector<uint8_t>(2 * kBytes, 5));
}

TEST_P(RuntimeTest, EventThatWasNeverRecorded_HasCome) {
  const OwnedEvent event = NewEvent();
  const OwnedQueue queue = NewQueue();
  EXPECT_THAT(runtime_->Query(event.get()), stoker::testing::IsOkAndHolds(true));
  EXPECT_OK(runtime_->Wait(event.get(), absl::Seconds(1)));
  EXPECT_OK(runtime_->QueueWait(queue.get(), event.get()));
}

TEST_P(RuntimeTest, AllocationBeyondTheDevice_IsResourceExhausted_AndTheRuntimeGoesOn) {
  EXPECT_THAT(runtime_->Allocate(uint64_t{1} << 50),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("1.00 PiB")));
  EXPECT_EQ(ToHost(ToDevice(std::vector<uint8_t>{1, 2}).get(), 2), (std::vector<uint8_t>{1, 2}));
}

TEST_P(RuntimeTest, EmptyProgram_DoesNothing) {
  const OwnedQueue queue = NewQueue();
  EXPECT_OK(runtime_->Launch(queue.get(), Program()));
  EXPECT_OK(runtime_->Drain(queue.get()));
}

TEST(OpenCudaOrHostRuntime, IsTheDevice_OrTheHostWithTheReason) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<DeviceRuntime> runtime, OpenCudaOrHostRuntime(0));
  EXPECT_EQ(runtime->info().on_device, runtime->info().notice.empty());
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<DeviceRuntime> no_such, OpenCudaOrHostRuntime(1 << 20));
  EXPECT_EQ(no_such->info().name, "host");
  EXPECT_THAT(no_such->info().notice, AllOf(HasSubstr("batches stay in host memory"), HasSubstr("CUDA")));
}

// ---- memory of several processes

TEST_P(RuntimeTest, ExportedMemory_IsTheSameWhereItIsImported_AndStaysWhenItIsFreedHere) {
  const std::vector<uint8_t> bytes = {1, 2, 3, 4};
  absl::StatusOr<void*> allocated = runtime_->AllocateExportable(1 << 20);
  if (absl::IsFailedPrecondition(allocated.status())) GTEST_SKIP() << allocated.status();
  ASSERT_OK(allocated);
  DeviceMemory memory(runtime_.get(), *allocated);
  ASSERT_OK_AND_ASSIGN(const UniqueFd exported, runtime_->Export(memory.get()));
  ASSERT_OK_AND_ASSIGN(void* const imported, runtime_->Import(exported.get(), 1 << 20));
  EXPECT_NE(imported, memory.get());
  const PinnedMemory pinned(runtime_.get(), *runtime_->AllocateHost(4));
  std::memcpy(pinned.get(), bytes.data(), 4);
  const OwnedQueue queue = NewQueue();
  ASSERT_OK(runtime_->CopyToDevice(queue.get(), memory.get(), pinned.get(), 4));
  EXPECT_EQ(ToHost(queue.get(), imported, 4), bytes);
  memory.Reset();
  EXPECT_EQ(ToHost(queue.get(), imported, 4), bytes);
  runtime_->CloseImport(imported);
}

TEST_P(RuntimeTest, MemoryThatIsNotExportable_IsNotExported) {
  const DeviceMemory plain(runtime_.get(), *runtime_->Allocate(64));
  EXPECT_THAT(runtime_->Export(plain.get()), ::testing::Not(stoker::testing::IsOk()));
  const UniqueFd no_memory(::open("/dev/null", O_RDONLY));
  EXPECT_THAT(runtime_->Import(no_memory.get(), 64), ::testing::Not(stoker::testing::IsOk()));
}

TEST(HostRuntimeTest, ExportableMemory_CountsAsTheOther_AndImportsAreCounted) {
  const std::unique_ptr<HostRuntime> runtime = HostRuntime::Create({.memory_bytes = 1000});
  DeviceMemory memory(runtime.get(), *runtime->AllocateExportable(600));
  EXPECT_THAT(runtime->AllocateExportable(600), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("600 B")));
  ASSERT_OK_AND_ASSIGN(const UniqueFd exported, runtime->Export(memory.get()));
  EXPECT_THAT(runtime->Import(exported.get(), 700), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK_AND_ASSIGN(void* const imported, runtime->Import(exported.get(), 600));
  EXPECT_EQ(runtime->live().imports, 1u);
  runtime->CloseImport(imported);
  memory.Reset();
  EXPECT_EQ(runtime->live(), HostRuntime::Live());
}

TEST(HostRuntimeTest, MemoryLimit_CountsWhatIsAllocated) {
  const std::unique_ptr<HostRuntime> runtime = HostRuntime::Create({.memory_bytes = 1000});
  DeviceMemory first(runtime.get(), *runtime->Allocate(600));
  EXPECT_THAT(runtime->Allocate(600), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("600 B")));
  first.Reset();
  const DeviceMemory second(runtime.get(), *runtime->Allocate(1000));
  EXPECT_EQ(runtime->live().device_bytes, 1000u);
}

TEST(HostRuntimeTest, Bus_TakesItsTime) {
  const std::unique_ptr<HostRuntime> runtime = HostRuntime::Create({.bus_bytes_per_second = 1'000'000});
  const OwnedQueue queue = *OwnQueue(*runtime);
  const PinnedMemory pinned(runtime.get(), *runtime->AllocateHost(20'000));
  const DeviceMemory device(runtime.get(), *runtime->Allocate(20'000));
  const absl::Time begin = absl::Now();
  ASSERT_OK(runtime->CopyToDevice(queue.get(), device.get(), pinned.get(), 20'000));
  ASSERT_OK(runtime->Drain(queue.get()));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(20));
}

TEST(HostRuntimeTest, FailedCall_DoesNothing_AndTheNextOneWorks) {
  const std::unique_ptr<HostRuntime> runtime = HostRuntime::Create({.fail_call = 1});
  const OwnedQueue queue = *OwnQueue(*runtime);
  EXPECT_THAT(runtime->Allocate(10), StatusIs(absl::StatusCode::kInternal, HasSubstr("Allocate of 10 B")));
  EXPECT_EQ(runtime->live().device_bytes, 0u);
  EXPECT_OK(Own<DeviceMemory>(*runtime, runtime->Allocate(10)));
}

TEST(HostRuntimeTest, FailedOperation_ComesBackFromEveryLaterCall) {
  const std::unique_ptr<HostRuntime> runtime = HostRuntime::Create({.fail_operation = 0});
  const OwnedQueue queue = *OwnQueue(*runtime);
  const OwnedEvent event = *OwnEvent(*runtime);
  const DeviceMemory device(runtime.get(), *runtime->Allocate(8));
  const PinnedMemory pinned(runtime.get(), *runtime->AllocateHost(8));
  EXPECT_OK(runtime->CopyToDevice(queue.get(), device.get(), pinned.get(), 8));
  EXPECT_THAT(runtime->Drain(queue.get()), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(runtime->Record(event.get(), queue.get()), StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(runtime->Allocate(1), StatusIs(absl::StatusCode::kInternal));
}

TEST(HostRuntimeTest, WaitForAnEventThatDoesNotCome_EndsByTheDeadline) {
  const std::unique_ptr<HostRuntime> runtime = HostRuntime::Create({.seed = 3, .max_delay = absl::Seconds(2)});
  const OwnedQueue queue = *OwnQueue(*runtime);
  const OwnedEvent event = *OwnEvent(*runtime);
  absl::Status status;
  for (int i = 0; i < 20 && status.ok(); ++i) {  // about half of the operations are late
    ASSERT_OK(runtime->Record(event.get(), queue.get()));
    status = runtime->Wait(event.get(), absl::Milliseconds(1));
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
}

}  // namespace
}  // namespace stoker::gpu
