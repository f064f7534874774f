// SPDX-License-Identifier: Apache-2.0
#include "client/gpu/assembler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/gpu/staging.h"
#include "tests/unit/gpu/memory_source.h"
#include "tests/unit/gpu/runtimes.h"

namespace stoker::gpu {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int kSteps = 7;

class AssemblerTest : public OnRuntime {
 protected:
  AssemblerTest() : batches_(NumberedBatches(kSteps)), source_(batches_) {}

  absl::StatusOr<std::unique_ptr<Assembler>> Open(const AssemblerOptions& options = {}) {
    return Assembler::Open(runtime_, source_.Source(), options);
  }

  // Reads `batch` back by its queue and compares with the step's bytes.
  void Check(const DeviceBatch& batch, Queue queue) {
    const std::vector<TensorBytes>& want = batches_[batch.step()];
    ASSERT_EQ(batch.tensors().size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      const DeviceTensor& tensor = batch.tensors()[i];
      EXPECT_EQ(tensor.name, want[i].spec.name);
      EXPECT_EQ(tensor.dtype, want[i].spec.dtype);
      EXPECT_EQ(tensor.shape, want[i].spec.shape);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % kDeviceAlignment, 0u);
      EXPECT_TRUE(ToHost(queue, tensor.data, tensor.bytes) == want[i].bytes) << tensor.name << " of " << batch.step();
    }
  }

  // Two epochs, each batch held while the next one is fetched.
  void ReadTwoEpochs(Assembler& assembler) {
    const OwnedQueue queue = NewQueue();
    for (uint64_t epoch = 0; epoch < 2; ++epoch) {
      DeviceBatch held;
      for (uint64_t step = 0; step < kSteps; ++step) {
        ASSERT_OK_AND_ASSIGN(std::optional<DeviceBatch> batch, assembler.Next(queue.get(), absl::Seconds(30)));
        ASSERT_TRUE(batch.has_value());
        EXPECT_EQ(batch->epoch(), epoch);
        EXPECT_EQ(batch->step(), step);
        Check(*batch, queue.get());
        held = *std::move(batch);
        EXPECT_EQ(assembler.position().step(), step + 1);
      }
      ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> end, assembler.Next(queue.get(), absl::Seconds(30)));
      EXPECT_FALSE(end.has_value());
      EXPECT_EQ(assembler.position().epoch(), epoch + 1);
    }
  }

  const std::vector<std::vector<TensorBytes>> batches_;
  MemorySource source_;
};
STOKER_ON_ALL_RUNTIMES(AssemblerTest);

TEST_P(AssemblerTest, EveryStaging_DeliversEveryByte_AndReturnsEveryLease) {
  for (const StagingMode mode : {StagingMode::kRing, StagingMode::kRegistered, StagingMode::kAuto}) {
    if (mode == StagingMode::kRegistered && !runtime_->info().can_register) continue;
    for (const int depth : {2, 3}) {
      MemorySource source(batches_);
      ASSERT_OK_AND_ASSIGN(const auto assembler,
                           Assembler::Open(runtime_, source.Source(), {.depth = depth, .staging = mode}));
      ReadTwoEpochs(*assembler);
      const AssemblerReport report = assembler->report();
      EXPECT_EQ(report.depth, depth);
      EXPECT_GE(report.batches, 2u * kSteps);
      EXPECT_EQ(report.pinned_bytes > 0, mode == StagingMode::kRing || !runtime_->info().can_register);
      assembler->Close();
      EXPECT_EQ(source.segment().leased(), 0u);
    }
  }
}

TEST_P(AssemblerTest, OneBatchOfDepth_Works) {
  const OwnedQueue queue = NewQueue();
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.depth = 1}));
  for (int step = 0; step < kSteps; ++step) {
    ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
    Check(*batch, queue.get());
  }
}

TEST_P(AssemblerTest, Leases_GoBackWhileTheBatchIsStillInUse) {
  const OwnedQueue queue = NewQueue();
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.depth = 2}));
  ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> first, assembler->Next(queue.get(), absl::Seconds(30)));
  ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> second, assembler->Next(queue.get(), absl::Seconds(30)));
  // Both places are taken, so nothing more is fetched, and what is on the device needs no lease.
  EXPECT_TRUE(source_.segment().AwaitLeased(0));
  EXPECT_THAT(assembler->Next(queue.get(), absl::Milliseconds(20)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  Check(*first, queue.get());
  Check(*second, queue.get());
}

TEST_P(AssemblerTest, BatchGivenBackAtOnce_IsNotOverwrittenBeforeTheQueuesHaveReadIt) {
  const OwnedQueue queue = NewQueue(), other = NewQueue();
  for (const int depth : {1, 2}) {
    MemorySource source(batches_);
    ASSERT_OK_AND_ASSIGN(const auto assembler, Assembler::Open(runtime_, source.Source(), {.depth = depth}));
    constexpr uint64_t kPlace = 1 << 13;
    const PinnedMemory pinned(runtime_.get(), *runtime_->AllocateHost(kSteps * kPlace));
    auto* const host = static_cast<uint8_t*>(pinned.get());
    for (int step = 0; step < kSteps; ++step) {
      ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
      ASSERT_TRUE(batch.has_value());
      ASSERT_OK_AND_ASSIGN(const DeviceTensor x, batch->Get("x"));
      const Queue reader = step % 2 == 0 ? queue.get() : other.get();
      for (int twice = 0; twice < 2; ++twice) ASSERT_OK(batch->UseOn(reader));
      // Nobody waits for it: the batch goes while the copy is queued, behind others.
      for (int again = 0; again < 5; ++again) {
        ASSERT_OK(runtime_->CopyToHost(reader, host + step * kPlace, x.data, x.bytes));
      }
    }
    ASSERT_OK(runtime_->Drain(queue.get()));
    ASSERT_OK(runtime_->Drain(other.get()));
    for (int step = 0; step < kSteps; ++step) {
      const std::vector<uint8_t>& want = batches_[step][0].bytes;
      EXPECT_EQ(std::memcmp(host + step * kPlace, want.data(), want.size()), 0) << step;
    }
  }
}

TEST_P(AssemblerTest, SegmentOverTheBudget_GoesThroughTheRing_AndSaysSo) {
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.register_budget_bytes = 4096}));
  ReadTwoEpochs(*assembler);
  EXPECT_THAT(assembler->report().notice, HasSubstr("batches go through pinned buffers"));
  EXPECT_EQ(assembler->report().registered_bytes, 0u);
}

TEST_P(AssemblerTest, ArenaLargerThanTheBudget_WhatCameFirstIsRegistered_ForGood) {
  if (!runtime_->info().can_register) GTEST_SKIP() << runtime_->info().name << " cannot register memory";
  const OwnedQueue queue = NewQueue();
  MemorySource source(batches_, kSteps);
  std::vector<Batch> held;  // so that each is somewhere else
  for (int step = 0; step < kSteps; ++step) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, source.Source().next(absl::Seconds(1)));
    ASSERT_TRUE(batch.has_value());
    held.push_back(*batch);
  }
  constexpr uint64_t kChunk = 4096;
  const StagingOptions options = {
      .register_budget_bytes = 3 * kChunk, .register_chunk_bytes = kChunk, .ring_buffer_bytes = 1 << 16};
  Staging staging(*runtime_, options);
  std::vector<bool> in_place[2];
  const auto await = [this](Event event) { return runtime_->Wait(event, absl::Seconds(30)); };
  for (std::vector<bool>& round : in_place) {
    for (int step = 0; step < kSteps; ++step) {
      const RawTensor& x = held[step].tensors()[0];
      const DeviceMemory memory(runtime_.get(), *runtime_->Allocate(x.bytes.size()));
      ASSERT_OK_AND_ASSIGN(const bool read,
                           staging.Upload(queue.get(), *held[step].data(), x.bytes, memory.get(), await));
      round.push_back(read);
      EXPECT_TRUE(ToHost(queue.get(), memory.get(), x.bytes.size()) == batches_[step][0].bytes) << step;
    }
  }
  EXPECT_TRUE(in_place[0].front());
  EXPECT_FALSE(in_place[0].back());
  EXPECT_EQ(in_place[0], in_place[1]);
  EXPECT_GT(staging.registered_bytes(), 0u);
  EXPECT_LE(staging.registered_bytes(), 3 * kChunk);
  EXPECT_THAT(staging.notice(), HasSubstr("the arena is over the budget of 12.0 KiB"));
}

TEST_P(AssemblerTest, BatchesThatAreNotInSharedMemory_GoThroughTheRing) {
  source_.SetInSegment(false);
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open());
  ReadTwoEpochs(*assembler);
  EXPECT_GT(assembler->report().pinned_bytes, 0u);
}

TEST_P(AssemblerTest, LimitBelowOneBatch_IsRefusedAtOpen_AndSmallPoolSaysSo) {
  EXPECT_THAT(Open({.device_bytes_limit = 100}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("the limit is 100 B")));
  ASSERT_OK_AND_ASSIGN(const auto roomy, Open({.depth = 4}));
  const uint64_t slot = roomy->report().device_bytes / 4;
  roomy->Close();
  source_.SeekTo({});
  ASSERT_OK_AND_ASSIGN(const auto tight, Open({.depth = 4, .device_bytes_limit = 2 * slot + 1}));
  EXPECT_EQ(tight->report().depth, 2);
  EXPECT_LE(tight->report().device_bytes, 2 * slot);
  EXPECT_THAT(tight->report().notice, HasSubstr("2 instead of 4"));
  ReadTwoEpochs(*tight);
  tight->Close();
  EXPECT_THAT(Open({.depth = 4, .min_depth = 3, .device_bytes_limit = 3 * slot - 1}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("and 3 have to be there")));
}

TEST_P(AssemblerTest, Report_CountsWhatTheCallerHolds) {
  const OwnedQueue queue = NewQueue();
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.depth = 3}));
  EXPECT_EQ(assembler->report().held, 0);
  std::vector<DeviceBatch> held;
  for (int count = 1; count <= 3; ++count) {
    ASSERT_OK_AND_ASSIGN(std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
    held.push_back(*std::move(batch));
    EXPECT_EQ(assembler->report().held, count);
  }
  held.clear();
  EXPECT_EQ(assembler->report().held, 0);
}

TEST_P(AssemblerTest, Restart_ForgetsWhatWasFetched_AndKeepsWhatIsHeld) {
  const OwnedQueue queue = NewQueue();
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.depth = 3}));
  ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> held, assembler->Next(queue.get(), absl::Seconds(30)));
  for (uint64_t step : {5, 0, 3, 6, 1, 1, 4}) {
    v1::Position position;
    position.set_epoch(2);
    position.set_step(step);
    ASSERT_OK(assembler->Restart([&]() -> absl::StatusOr<v1::Position> {
      EXPECT_EQ(source_.segment().leased(), 0u);
      source_.SeekTo(position);
      return position;
    }));
    EXPECT_EQ(assembler->position().step(), step);
    for (; step < kSteps; ++step) {
      ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
      ASSERT_TRUE(batch.has_value());
      EXPECT_EQ(batch->step(), step);
      Check(*batch, queue.get());
      Check(*held, queue.get());
      if (step % 2 == 1) break;
    }
  }
}

TEST_P(AssemblerTest, Restart_AfterAnErrorOfTheSource_GoesOn_AndAfterAFailedSeekToo) {
  const OwnedQueue queue = NewQueue();
  source_.FailAt(1, absl::UnavailableError("no daemon"));
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open());
  ASSERT_OK(assembler->Next(queue.get(), absl::Seconds(30)).status());
  EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(30)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(assembler->Restart([] { return absl::NotFoundError("no such step"); }),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_FALSE(assembler->Next(queue.get(), absl::Seconds(30)).ok());
  source_.FailAt(1, absl::OkStatus());
  source_.SeekTo(assembler->position());
  ASSERT_OK(assembler->Restart([&] { return assembler->position(); }));
  ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->step(), 1u);
  Check(*batch, queue.get());
}

TEST_P(AssemblerTest, CallersAllocator_HoldsTheBatches_AndGetsItAllBack) {
  std::vector<void*> live;
  DeviceAllocator allocator;
  allocator.allocate = [&](uint64_t bytes) {
    live.push_back(*runtime_->Allocate(bytes));
    return live.back();
  };
  allocator.free = [&](void* memory) {
    std::erase(live, memory);
    runtime_->Free(memory);
  };
  {
    ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.depth = 3, .allocator = allocator}));
    EXPECT_EQ(live.size(), 3u);
    ReadTwoEpochs(*assembler);
  }
  EXPECT_TRUE(live.empty());
}

TEST_P(AssemblerTest, ErrorOfTheLoader_ComesInItsPlace_AndStays) {
  const OwnedQueue queue = NewQueue();
  source_.FailAt(3, absl::InvalidArgumentError("sample 17 (x.ts:4)"));
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open());
  for (int step = 0; step < 3; ++step) {
    ASSERT_OK_AND_ASSIGN(const std::optional<DeviceBatch> batch, assembler->Next(queue.get(), absl::Seconds(30)));
    Check(*batch, queue.get());
  }
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(30)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sample 17")));
  }
  EXPECT_EQ(assembler->position().step(), 3u);
}

TEST_P(AssemblerTest, CancelledLoader_EndsIt) {
  const OwnedQueue queue = NewQueue();
  source_.Stall();
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open());
  EXPECT_THAT(assembler->Next(queue.get(), absl::Milliseconds(10)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  source_.Cancel();
  EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(30)), StatusIs(absl::StatusCode::kCancelled));
}

TEST_P(AssemblerTest, EarlyDestruction_LeavesBatchesReadable_AndNothingElse) {
  const OwnedQueue queue = NewQueue();
  std::optional<DeviceBatch> batch;
  {
    ASSERT_OK_AND_ASSIGN(const auto assembler, Open({.depth = 3, .staging = StagingMode::kAuto}));
    ASSERT_OK_AND_ASSIGN(batch, assembler->Next(queue.get(), absl::Seconds(30)));
  }
  EXPECT_EQ(source_.segment().leased(), 0u);
  Check(*batch, queue.get());
  batch.reset();
  { ASSERT_OK(Open()); }  // and at once
}

TEST_P(AssemblerTest, Close_WakesNext) {
  const OwnedQueue queue = NewQueue();
  source_.Stall();
  ASSERT_OK_AND_ASSIGN(const auto assembler, Open());
  std::thread closer([&] { assembler->Close(); });
  EXPECT_THAT(assembler->Next(queue.get()), StatusIs(absl::StatusCode::kCancelled));
  closer.join();
}

TEST_P(AssemblerTest, MemoryWrittenAnewWhileItWasCopied_IsAnError) {
  const OwnedQueue queue = NewQueue();
  for (const StagingMode mode : {StagingMode::kRing, StagingMode::kAuto}) {
    MemorySource source(batches_);
    source.OverwriteAt(2);
    ASSERT_OK_AND_ASSIGN(const auto assembler,
                         Assembler::Open(runtime_, source.Source(), {.depth = 1, .staging = mode}));
    absl::StatusOr<std::optional<DeviceBatch>> batch;
    for (int step = 0; step < kSteps && batch.status().code() != absl::StatusCode::kAborted; ++step) {
      batch = std::nullopt;  // its place is free again
      batch = assembler->Next(queue.get(), absl::Seconds(30));
    }
    EXPECT_THAT(batch, StatusIs(absl::StatusCode::kAborted, HasSubstr("read the batch again")));
  }
}

TEST_P(AssemblerTest, OptionsOutOfRange_AreRefused) {
  EXPECT_THAT(Open({.depth = 0}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("depth: 0")));
  EXPECT_THAT(Open({.depth = 2, .min_depth = 3}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("min_depth: 3")));
  AssemblerOptions half;
  half.allocator.free = [](void*) {};
  EXPECT_THAT(Open(half), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("allocator")));
}

}  // namespace
}  // namespace stoker::gpu
