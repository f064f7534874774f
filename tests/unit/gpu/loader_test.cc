// SPDX-License-Identifier: Apache-2.0
// The assembler on a loader's batches, which lie in a segment of a (fake) daemon and are leased from it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/gpu/assembler.h"
#include "client/gpu/host_runtime.h"
#include "tests/unit/client/loader_fixture.h"

namespace stoker::gpu {
namespace {

using testing::ExpectedValue;
using testing::kColumns;
using testing::kRows;
using testing::StatusIs;

class LoaderAssemblerTest : public testing::LoaderFixture {
 protected:
  LoaderAssemblerTest()
      : runtime_(HostRuntime::Create({.seed = 4, .max_delay = absl::Microseconds(100)})),
        queue_(*OwnQueue(*runtime_)),
        pinned_(runtime_.get(), *runtime_->AllocateHost(4096)) {}

  // "epoch:step" when the device holds exactly what it must, "end" at the end of an epoch, else what is wrong.
  std::string NextOnDevice(Assembler& assembler) {
    const absl::StatusOr<std::optional<DeviceBatch>> batch = assembler.Next(queue_.get(), absl::Seconds(20));
    if (!batch.ok()) return batch.status().ToString();
    if (!batch->has_value()) return "end";
    const absl::StatusOr<DeviceTensor> x = (*batch)->Get("x");
    if (!x.ok()) return x.status().ToString();
    absl::Status status = runtime_->CopyToHost(queue_.get(), pinned_.get(), x->data, x->bytes);
    if (status.ok()) status = runtime_->Drain(queue_.get());
    if (!status.ok()) return status.ToString();
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      const float got = static_cast<const float*>(pinned_.get())[i];
      if (got != ExpectedValue((*batch)->epoch(), (*batch)->step(), i)) return absl::StrCat("wrong value ", got);
    }
    return absl::StrCat((*batch)->epoch(), ":", (*batch)->step());
  }

  std::shared_ptr<HostRuntime> runtime_;
  OwnedQueue queue_;
  PinnedMemory pinned_;
};

TEST_F(LoaderAssemblerTest, Epochs_ComeInOrder_FromARegisteredSegment) {
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_OK_AND_ASSIGN(const auto assembler, Assembler::Open(runtime_, FromLoader(loader), {}));
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (int step = 0; step < 5; ++step) EXPECT_EQ(NextOnDevice(*assembler), absl::StrCat(epoch, ":", step));
    EXPECT_EQ(NextOnDevice(*assembler), "end");
  }
  EXPECT_GT(assembler->report().registered_bytes, 0u);
  EXPECT_EQ(assembler->report().notice, "");
  assembler->Close();
  loader.Close();
  EXPECT_TRUE(daemon_->AwaitLeases(0));
  EXPECT_EQ(runtime_->live().registered, 0u);
}

TEST_F(LoaderAssemblerTest, InlineBatches_GoThroughTheRing) {
  daemon_options_.shared_memory = false;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_OK_AND_ASSIGN(const auto assembler, Assembler::Open(runtime_, FromLoader(loader), {}));
  for (int step = 0; step < 5; ++step) EXPECT_EQ(NextOnDevice(*assembler), absl::StrCat("0:", step));
  EXPECT_GT(assembler->report().pinned_bytes, 0u);
  EXPECT_THAT(assembler->report().notice, ::testing::HasSubstr("not in shared memory"));
}

TEST_F(LoaderAssemblerTest, ClosedLoader_EndsTheAssembler_AndItsPositionIsWhereToGoOn) {
  options_.prefetch = 0;
  ASSERT_OK_AND_ASSIGN(Loader loader, Open());
  ASSERT_OK_AND_ASSIGN(auto assembler, Assembler::Open(runtime_, FromLoader(loader), {.depth = 2}));
  EXPECT_EQ(NextOnDevice(*assembler), "0:0");
  EXPECT_EQ(NextOnDevice(*assembler), "0:1");
  loader.Close();
  std::string last;
  int more = 0;
  while ((last = NextOnDevice(*assembler)).starts_with("0:")) ++more;  // what was on its way already
  EXPECT_THAT(last, ::testing::HasSubstr("CANCELLED"));
  EXPECT_EQ(assembler->position().step(), 2u + more);

  options_.start = assembler->position();
  assembler.reset();
  ASSERT_OK_AND_ASSIGN(Loader next, Open());
  ASSERT_OK_AND_ASSIGN(assembler, Assembler::Open(runtime_, FromLoader(next), {}));
  EXPECT_EQ(NextOnDevice(*assembler), absl::StrCat("0:", 2 + more));
  assembler.reset();  // before the loader that it reads
}

}  // namespace
}  // namespace stoker::gpu
