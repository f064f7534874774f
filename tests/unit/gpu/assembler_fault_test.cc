// SPDX-License-Identifier: Apache-2.0
// What can go wrong around a device, one thing after the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/gpu/assembler.h"
#include "client/gpu/host_runtime.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/gpu/memory_source.h"

namespace stoker::gpu {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int kSteps = 6;

// Reads one epoch by an assembler, each batch through a consumer's queue, and counts the steps whose bytes were right.
// Whatever happens, afterwards all leases are back and the runtime has nothing left.
class FaultTest : public ::testing::Test {
 protected:
  struct Outcome {
    absl::Status status;
    uint64_t steps = 0;
    int64_t calls = 0;
    int64_t operations = 0;
  };

  Outcome Read(const HostFaults& faults, StagingMode mode, int depth = 2) {
    Outcome outcome;
    MemorySource source(batches_);
    std::shared_ptr<HostRuntime> runtime = HostRuntime::Create(faults);
    outcome.status = ReadEpoch(runtime, source, mode, depth, &outcome.steps);
    EXPECT_EQ(source.segment().leased(), 0u);
    EXPECT_EQ(runtime->live(), HostRuntime::Live{});
    outcome.calls = runtime->calls();
    outcome.operations = runtime->operations();
    return outcome;
  }

 private:
  absl::Status ReadEpoch(const std::shared_ptr<HostRuntime>& runtime, MemorySource& source, StagingMode mode, int depth,
                         uint64_t* steps) {
    // The reader's own calls are no part of what is tested: they are made before, or not counted as failures.
    absl::StatusOr<OwnedQueue> queue = OwnQueue(*runtime);
    if (!queue.ok()) return queue.status();
    absl::StatusOr<PinnedMemory> pinned = Own<PinnedMemory>(*runtime, runtime->AllocateHost(1 << 16));
    if (!pinned.ok()) return pinned.status();
    auto assembler = Assembler::Open(runtime, source.Source(), {.depth = depth, .staging = mode});
    if (!assembler.ok()) return assembler.status();
    while (true) {
      auto batch = (*assembler)->Next(queue->get(), absl::Seconds(30));
      if (!batch.ok()) return batch.status();
      if (!batch->has_value()) return absl::OkStatus();
      const std::vector<TensorBytes>& want = batches_[(*batch)->step()];
      EXPECT_EQ((*batch)->step(), *steps);
      const DeviceTensor x = (*batch)->tensors()[0];
      absl::Status status = runtime->CopyToHost(queue->get(), pinned->get(), x.data, x.bytes);
      if (status.ok()) status = runtime->Drain(queue->get());
      if (!status.ok()) return status;
      EXPECT_EQ(std::memcmp(pinned->get(), want[0].bytes.data(), x.bytes), 0) << "step " << *steps;
      ++*steps;
    }
  }

  const std::vector<std::vector<TensorBytes>> batches_ = NumberedBatches(kSteps);
};

TEST_F(FaultTest, EveryOrderOfQueues_GivesTheSameBytes) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    for (const StagingMode mode : {StagingMode::kRing, StagingMode::kRegistered}) {
      const Outcome outcome = Read({.seed = seed, .max_delay = absl::Milliseconds(1)}, mode, 1 + seed % 3);
      EXPECT_OK(outcome.status) << "seed " << seed;
      EXPECT_EQ(outcome.steps, static_cast<uint64_t>(kSteps));
    }
  }
}

TEST_F(FaultTest, EachCallThatFails_IsAnErrorWithItsName_AndNothingIsLost) {
  for (const StagingMode mode : {StagingMode::kRing, StagingMode::kAuto}) {
    const int64_t calls = Read({}, mode).calls;
    ASSERT_GT(calls, 20);
    for (int64_t call = 0; call < calls; ++call) {
      const Outcome outcome = Read({.seed = 5, .max_delay = absl::Microseconds(50), .fail_call = call}, mode);
      if (outcome.status.ok()) continue;  // made up for (registration), or after the last batch
      EXPECT_THAT(outcome.status,
                  StatusIs(absl::StatusCode::kInternal, HasSubstr(absl::StrCat("call ", call, " is to fail"))));
    }
  }
}

TEST_F(FaultTest, EachOperationThatFails_ClosesTheAssembler_AndNothingIsLost) {
  for (const StagingMode mode : {StagingMode::kRing, StagingMode::kRegistered}) {
    for (int64_t operation = 0; operation < int64_t{2} * kSteps; ++operation) {
      const Outcome outcome = Read({.seed = 5, .max_delay = absl::Microseconds(50), .fail_operation = operation}, mode);
      EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kInternal, HasSubstr("failed")))
          << "operation " << operation;
    }
  }
}

TEST_F(FaultTest, Restart_AfterTheDeviceFailed_IsRefused) {
  MemorySource source(NumberedBatches(kSteps));
  const std::shared_ptr<HostRuntime> runtime = HostRuntime::Create({.fail_operation = 0});
  ASSERT_OK_AND_ASSIGN(const OwnedQueue queue, OwnQueue(*runtime));
  ASSERT_OK_AND_ASSIGN(const auto assembler, Assembler::Open(runtime, source.Source(), {}));
  while (assembler->Next(queue.get(), absl::Seconds(30)).ok()) {
  }
  EXPECT_THAT(assembler->Restart([]() -> absl::StatusOr<v1::Position> {
    ADD_FAILURE() << "seek was called";
    return v1::Position();
  }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("failed")));
}

TEST_F(FaultTest, RegistrationThatFails_TakesTheRing) {
  // Calls in order: the queue and the pinned memory of the test, two slots of four calls, the queue, the wait for the
  // slot.
  const Outcome outcome = Read({.fail_call = 12}, StagingMode::kAuto);
  EXPECT_OK(outcome.status);
  EXPECT_EQ(outcome.steps, static_cast<uint64_t>(kSteps));
  EXPECT_THAT(Read({.fail_call = 12}, StagingMode::kRegistered).status,
              StatusIs(absl::StatusCode::kInternal, HasSubstr("RegisterHost")));
}

// As one that waits for another rank in an all-reduce.
TEST_F(FaultTest, ConsumerThatTakesLongerThanADeviceMay_IsWaitedFor) {
  const std::shared_ptr<HostRuntime> runtime = HostRuntime::Create({.bus_bytes_per_second = 10 << 20});
  ASSERT_OK_AND_ASSIGN(const OwnedQueue queue, OwnQueue(*runtime));
  constexpr uint64_t kBytes = 10 << 20;  // a second
  ASSERT_OK_AND_ASSIGN(const PinnedMemory pinned, Own<PinnedMemory>(*runtime, runtime->AllocateHost(kBytes)));
  ASSERT_OK_AND_ASSIGN(const DeviceMemory memory, Own<DeviceMemory>(*runtime, runtime->Allocate(kBytes)));
  for (const StagingMode mode : {StagingMode::kRing, StagingMode::kRegistered}) {
    MemorySource source(NumberedBatches(kSteps));
    ASSERT_OK_AND_ASSIGN(
        const auto assembler,
        Assembler::Open(runtime, source.Source(), {.staging = mode, .device_timeout = absl::Milliseconds(400)}));
    for (int step = 0; step < kSteps / 2; ++step) {
      ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
      ASSERT_TRUE(batch.has_value());
      if (step > 0) continue;
      EXPECT_OK(runtime->CopyToDevice(queue.get(), memory.get(), pinned.get(), kBytes));
    }
  }
  EXPECT_OK(runtime->Drain(queue.get()));
}

TEST_F(FaultTest, DeviceThatHangs_IsAnErrorThatStays) {
  const std::shared_ptr<HostRuntime> runtime = HostRuntime::Create({.bus_bytes_per_second = 10 << 10});
  ASSERT_OK_AND_ASSIGN(const OwnedQueue queue, OwnQueue(*runtime));
  for (const StagingMode mode : {StagingMode::kRing, StagingMode::kRegistered}) {
    MemorySource source(NumberedBatches(kSteps));
    ASSERT_OK_AND_ASSIGN(
        const auto assembler,
        Assembler::Open(runtime, source.Source(), {.staging = mode, .device_timeout = absl::Milliseconds(10)}));
    absl::Status status;
    for (int i = 0; i < kSteps && status.ok(); ++i) status = assembler->Next(queue.get(), absl::Seconds(30)).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal, HasSubstr("the device hangs")));
    EXPECT_THAT(assembler->Next(queue.get(), absl::ZeroDuration()), StatusIs(absl::StatusCode::kInternal));
  }
}

TEST_F(FaultTest, ConsumerThatIsBeingCaptured_GetsTheBatchLater_AndMayNotLetGoOfOne) {
  MemorySource source(NumberedBatches(kSteps));
  const std::shared_ptr<HostRuntime> runtime = HostRuntime::Create();
  ASSERT_OK_AND_ASSIGN(const OwnedQueue queue, OwnQueue(*runtime));
  ASSERT_OK_AND_ASSIGN(const auto assembler, Assembler::Open(runtime, source.Source(), {}));
  runtime->SetCaptured(queue.get(), true);
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(30)),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("captured")));
  }
  runtime->SetCaptured(queue.get(), false);
  for (uint64_t step = 0; step < 3; ++step) {
    ASSERT_OK_AND_ASSIGN(std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
    ASSERT_TRUE(batch.has_value());
    EXPECT_EQ(batch->step(), step);
    if (step == 2) runtime->SetCaptured(queue.get(), true);
  }
  runtime->SetCaptured(queue.get(), false);
  EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(30)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("a batch that was given back")));
}

TEST_F(FaultTest, DeviceWithLittleMemory_HoldsFewerBatches_DownToOne) {
  uint64_t last = kSteps;
  for (const uint64_t bytes : {30'000, 9'000, 4'000, 100}) {
    const Outcome outcome = Read({.memory_bytes = bytes}, StagingMode::kRing, 3);
    if (!outcome.status.ok()) {
      EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kResourceExhausted));
      EXPECT_EQ(outcome.steps, 0u);
    }
    EXPECT_LE(outcome.steps, last);
    last = outcome.steps;
  }
  EXPECT_EQ(last, 0u);
}

}  // namespace
}  // namespace stoker::gpu
