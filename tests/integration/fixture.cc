// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/fixture.h"

#include <sys/wait.h>

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace stoker::testing {

Digests ReadEpoch(Loader* loader) {
  Digests digests;
  const uint64_t epoch = loader->position().epoch();
  for (uint64_t step = loader->position().step();; ++step) {
    const absl::StatusOr<std::optional<Batch>> batch = loader->Next(absl::Seconds(60));
    EXPECT_OK(batch);
    if (!batch.ok() || !batch->has_value()) {
      if (batch.ok()) {
        EXPECT_EQ(step, loader->steps_per_epoch()) << "the epoch ended early";
      }
      return digests;
    }
    EXPECT_EQ((*batch)->epoch(), epoch);
    EXPECT_EQ((*batch)->step(), step);
    digests[{epoch, step}] = DigestOf(**batch);
  }
}

LoaderOptions Read(const std::string& dataset, uint32_t batch_size, uint64_t epochs) {
  LoaderOptions options;
  options.dataset = dataset;
  options.plan.set_batch_size(batch_size);
  options.epochs = epochs;
  return options;
}

IntegrationTest::IntegrationTest() { std::filesystem::create_directories(DataFile("")); }

void IntegrationTest::StartDaemon(const DaemonOptions& options) {
  EmbeddedDaemonOptions embedded;
  embedded.program = Program("stokerd");
  embedded.arena_bytes = options.arena_bytes;
  embedded.workers = options.workers;
  embedded.cache_dir = cache_dir();
  embedded.roots = {DataFile("")};
  if (const std::string shared = SharedFile("data"); !shared.empty()) embedded.roots.push_back(shared);
  embedded.extra = options.extra;
  ASSERT_OK_AND_ASSIGN(daemon_, EmbeddedDaemon::Start(embedded));
  ASSERT_OK_AND_ASSIGN(client_, Client::Connect({.address = daemon_->address()}));
  RememberInstance(Status());
}

void IntegrationTest::StopDaemon() {
  client_.reset();
  const std::string said = daemon_->stderr_tail();
  const int status = daemon_->Stop();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
      << "stokerd ended with " << status << "; it said: " << said;
  daemon_.reset();
  ExpectNothingLeft();
}

void IntegrationTest::TearDown() {
  if (daemon_) StopDaemon();
  ExpectNothingLeft();
}

v1::StatusReply IntegrationTest::Status() {
  const absl::StatusOr<v1::StatusReply> status = client_->GetStatus();
  EXPECT_OK(status);
  return status.value_or(v1::StatusReply());
}

void IntegrationTest::RememberInstance(const v1::StatusReply& status) {
  instances_.emplace_back(status.instance_id(), status.pid());
}

void IntegrationTest::ExpectNothingLeft() {
  for (const auto& [instance, pid] : instances_) {
    EXPECT_THAT(SegmentsOf(instance), ::testing::IsEmpty());
    // A killed daemon's workers get their signal a moment later.
    EXPECT_TRUE(Eventually([pid = pid] { return WorkersOf(pid).empty(); }))
        << "workers of stokerd " << pid << " live on";
  }
}

v1::IngestEvent::Done IntegrationTest::Ingest(const std::string& name, const std::string& source,
                                              const v1::IngestOptions& options) {
  v1::IngestRequest request;
  request.set_name(name);
  request.add_source(source);
  *request.mutable_options() = options;
  const absl::StatusOr<v1::IngestEvent::Done> done = client_->Ingest(request);
  EXPECT_OK(done);
  return done.value_or(v1::IngestEvent::Done());
}

void IntegrationTest::IngestSamples(const std::string& name, const Samples& samples) {
  const v1::IngestEvent::Done done = Ingest(name, WriteData(name + ".ts", ToTs(samples)));
  EXPECT_EQ(done.dataset().samples(), samples.count);
}

Digests IntegrationTest::ReadAll(const LoaderOptions& options) {
  absl::StatusOr<Loader> loader = client_->Open(options);
  EXPECT_OK(loader);
  return loader.ok() ? ReadEpoch(&*loader) : Digests();
}

}  // namespace stoker::testing
