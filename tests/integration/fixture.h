// SPDX-License-Identifier: Apache-2.0
// A test with a daemon of its own, that leaves nothing behind: when it is over, no segment of its daemons is in
// /dev/shm and none of their processes lives.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stoker/client.h"
#include "stoker/embedded_daemon.h"
#include "tests/integration/digest.h"
#include "tests/integration/programs.h"
#include "tests/integration/series.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::testing {

// What was read: (epoch, step) and the checksum of the batch.
using Digests = std::map<std::pair<uint64_t, uint64_t>, uint32_t>;

// Of the batches from where the loader is to the end of the epoch. Fails the test where a batch does not come, and
// where positions are not in order.
Digests ReadEpoch(Loader* loader);

LoaderOptions Read(const std::string& dataset, uint32_t batch_size, uint64_t epochs = 1);

class IntegrationTest : public ::testing::Test {
 protected:
  IntegrationTest();
  void TearDown() override;

  // Small, with two workers, and the data below DataFile() as its root. Cache and root are the same for all daemons of
  // a test. Use ASSERT_NO_FATAL_FAILURE.
  struct DaemonOptions {
    std::string arena_bytes = "32MiB";
    std::string workers = "2";
    std::vector<std::string> extra = {};
  };
  void StartDaemon() { StartDaemon(DaemonOptions()); }
  void StartDaemon(const DaemonOptions& options);
  // By SIGTERM; it must end with 0 and leave nothing behind.
  void StopDaemon();

  EmbeddedDaemon& daemon() { return *daemon_; }
  Client& client() { return *client_; }
  v1::StatusReply Status();
  // For a daemon that the test starts itself, too: to be looked for at the end.
  void RememberInstance(const v1::StatusReply& status);

  // A file that daemons of this test may read.
  std::string DataFile(absl::string_view name) const { return dir_.File(absl::StrCat("data/", name)); }
  std::string WriteData(absl::string_view name, absl::string_view bytes) const {
    return dir_.Write(absl::StrCat("data/", name), bytes);
  }
  std::string cache_dir() const { return dir_.File("cache"); }
  const TempDir& dir() const { return dir_; }

  v1::IngestEvent::Done Ingest(const std::string& name, const std::string& source,
                               const v1::IngestOptions& options = {});
  // Writes the samples as .ts and ingests them.
  void IngestSamples(const std::string& name, const Samples& samples);
  Digests ReadAll(const LoaderOptions& options);  // one epoch, by a loader of its own

 private:
  void ExpectNothingLeft();

  TempDir dir_;
  std::optional<EmbeddedDaemon> daemon_;
  std::optional<Client> client_;
  std::vector<std::pair<std::string, pid_t>> instances_;  // of all daemons there were
};

}  // namespace stoker::testing
