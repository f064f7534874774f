// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "stoker/client.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/client/fake_daemon.h"

namespace stoker::testing {

// A fake daemon, a client of it, and a loader of "numbers".
class LoaderFixture : public ::testing::Test {
 protected:
  LoaderFixture() {
    daemon_options_.socket = dir_.File("stoker.sock");
    options_.dataset = "numbers";
    options_.plan.set_batch_size(kRows);
  }

  void StartDaemon() { daemon_ = std::make_unique<FakeDaemon>(daemon_options_); }

  absl::StatusOr<Loader> Open() {
    if (daemon_ == nullptr) StartDaemon();
    absl::StatusOr<Client> client = Client::Connect({.address = daemon_options_.socket});
    return client.ok() ? client->Open(options_) : client.status();
  }

  // "epoch:step" when the batch holds exactly what it must, "end" at the end of an epoch, else what is wrong.
  static std::string NextOf(Loader& loader) {
    const absl::StatusOr<std::optional<Batch>> batch = loader.Next(absl::Seconds(20));
    if (!batch.ok()) return batch.status().ToString();
    if (!batch->has_value()) return "end";
    return Describe(**batch);
  }

  static std::string Describe(const Batch& batch) {
    const absl::StatusOr<TensorView<float>> x = batch.Get<float>("x");
    if (!x.ok()) return x.status().ToString();
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      if (x->data()[i] != ExpectedValue(batch.epoch(), batch.step(), i)) {
        return absl::StrCat("wrong value ", x->data()[i], " at ", i, " of ", batch.epoch(), ":", batch.step());
      }
    }
    return absl::StrCat(batch.epoch(), ":", batch.step());
  }

  static std::string Position(const Loader& loader) {
    return absl::StrCat(loader.position().epoch(), ":", loader.position().step());
  }

  TempDir dir_;
  FakeDaemonOptions daemon_options_;
  LoaderOptions options_;
  std::unique_ptr<FakeDaemon> daemon_;
};

}  // namespace stoker::testing
