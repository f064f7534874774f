// SPDX-License-Identifier: Apache-2.0
// A source folder and a cache in a temporary directory, and ingest into it by threads of this process.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/ingest/job.h"
#include "shared/store/time_series_store.h"
#include "tests/support/temp_dir.h"

namespace stoker::ingest {

class IngestHarness {
 public:
  std::string Write(absl::string_view name, absl::string_view bytes) const {
    return dir_.Write(absl::StrCat("data/", name), bytes);
  }
  std::string cache_dir() const { return dir_.File("cache"); }
  std::string data_dir() const { return dir_.File("data"); }
  std::string StoreDir(const IngestResult& result) const {
    return absl::StrCat(cache_dir(), "/stores/", result.manifest.id());
  }

  IngestParams Params(std::vector<std::string> sources, const v1::IngestOptions& options = {}) const {
    return {.name = "d",
            .sources = std::move(sources),
            .options = options,
            .cache_dir = cache_dir(),
            .roots = {"/"},
            .lock_timeout = absl::Seconds(60)};
  }

  absl::StatusOr<IngestResult> Ingest(std::vector<std::string> sources, const v1::IngestOptions& options = {},
                                      int threads = 2) const {
    ThreadUnitRunner runner(threads);
    return IngestJob(Params(std::move(sources), options), &runner, nullptr).Run();
  }

  // Ingests and opens the store.
  absl::StatusOr<std::shared_ptr<const store::TimeSeriesStore>> Open(std::vector<std::string> sources,
                                                                     const v1::IngestOptions& options = {}) const {
    const absl::StatusOr<IngestResult> result = Ingest(std::move(sources), options);
    if (!result.ok()) return result.status();
    return store::TimeSeriesStore::Open(StoreDir(*result));
  }

  const testing::TempDir& dir() const { return dir_; }

 private:
  testing::TempDir dir_;
};

// Points of channel c of a sample; empty when it cannot be read.
inline std::vector<double> Channel(const store::TimeSeriesStore& store, uint64_t sample, uint64_t c) {
  const absl::StatusOr<store::SampleView> view = store.Sample(sample);
  if (!view.ok()) return {};
  std::vector<double> values(view->length);
  view->CopyChannel(c, values.data());
  return values;
}

inline std::vector<std::string> ClassLabels(const v1::StoreManifest& manifest) {
  std::vector<std::string> labels;
  for (const v1::ClassInfo& info : manifest.classes()) labels.push_back(info.label());
  return labels;
}

}  // namespace stoker::ingest
