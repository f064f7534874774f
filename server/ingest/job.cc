// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/ingest/cache.h"
#include "server/ingest/catalog.h"
#include "server/ingest/content.h"
#include "server/ingest/crystal_merge.h"
#include "server/ingest/crystal_options.h"
#include "server/ingest/merge.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"
#include "shared/store/safetensors.h"
#include "shared/store/time_series_store.h"

namespace stoker::ingest {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

template <typename T>
absl::Span<const uint8_t> AsBytes(const std::vector<T>& elements) {
  return {reinterpret_cast<const uint8_t*>(elements.data()), elements.size() * sizeof(T)};
}

// Writes what only the whole source tells into a shard.
absl::Status PatchShard(const std::string& path, const ShardPatch& patch) {
  const std::vector<int64_t> first_line = {patch.first_line};
  std::map<std::string, absl::Span<const uint8_t>> tensors = {{"first_line", AsBytes(first_line)}};
  std::vector<int64_t> target;
  if (!patch.class_of.empty()) {
    STOKER_ASSIGN_OR_RETURN(const store::SafetensorsFile file, store::SafetensorsFile::Open(path));
    STOKER_ASSIGN_OR_RETURN(const absl::Span<const int32_t> labels, file.Get<int32_t>("label"));
    for (const int32_t label : labels) {
      if (label < 0 || static_cast<size_t>(label) >= patch.class_of.size()) {
        return absl::DataLossError(absl::StrCat("reading ", path, ": label ", label, " of ", patch.class_of.size()));
      }
      target.push_back(patch.class_of[static_cast<size_t>(label)]);
    }
    tensors["target"] = AsBytes(target);
  }
  return store::OverwriteTensors(path, tensors);
}

}  // namespace

class IngestJob::Steps {
 public:
  Steps(const IngestParams& params, UnitRunner* runner, const ProgressSink& sink, const std::atomic<bool>& cancelled)
      : params_(params), runner_(runner), sink_(sink), cancelled_(cancelled), cache_(params.cache_dir) {}

  absl::StatusOr<IngestResult> Run();

 private:
  absl::Status Resolve();
  bool IsUnchanged();
  absl::Status Hash();
  absl::StatusOr<bool> UseExistingStore();
  absl::Status LockStaging();
  absl::Status MakeShards();
  absl::Status RunUnits(std::vector<std::string>* summaries);
  absl::Status Publish();
  absl::Status WriteStore(MergedStore merged);
  absl::Status Record();
  absl::Status CheckCancelled() const;
  void StartPhase(absl::string_view phase, uint64_t bytes_total);
  void AddProgress(const std::function<void(v1::IngestEvent::Progress*)>& change, bool now = false);

  const IngestParams& params_;
  UnitRunner* const runner_;
  const ProgressSink& sink_;
  const std::atomic<bool>& cancelled_;
  const CacheDir cache_;
  const absl::Time started_ = absl::Now();

  v1::IngestOptions options_;  // completed
  std::vector<Source> sources_;
  std::vector<v1::SourceFile> files_;
  std::string id_;
  UniqueFd staging_lock_;
  std::vector<Unit> units_;
  std::vector<UnitSummary> summaries_;
  IngestResult result_;

  std::mutex mutex_;  // over the rest, and held while the sink is called
  v1::IngestEvent::Progress progress_;
  std::vector<uint64_t> unit_bytes_;  // read so far, by unit
  absl::Time last_sent_ = absl::InfinitePast();
};

absl::Status IngestJob::Steps::CheckCancelled() const {
  return cancelled_.load(std::memory_order_relaxed)
             ? absl::CancelledError(absl::StrCat("ingest ", params_.name, ": cancelled; asked again, it goes on"))
             : absl::OkStatus();
}

void IngestJob::Steps::AddProgress(const std::function<void(v1::IngestEvent::Progress*)>& change, bool now) {
  const std::lock_guard lock(mutex_);
  change(&progress_);
  if (!sink_ || (!now && absl::Now() - last_sent_ < kProgressInterval)) return;
  last_sent_ = absl::Now();
  sink_(progress_);
}

void IngestJob::Steps::StartPhase(absl::string_view phase, uint64_t bytes_total) {
  AddProgress(
      [&](v1::IngestEvent::Progress* progress) {
        progress->set_phase(std::string(phase));
        progress->set_bytes_done(0);
        progress->set_bytes_total(bytes_total);
      },
      /*now=*/true);
}

absl::Status IngestJob::Steps::Resolve() {
  STOKER_RETURN_IF_ERROR(CheckDatasetName(params_.name));
  STOKER_ASSIGN_OR_RETURN(options_, CompleteOptions(params_.options));
  STOKER_ASSIGN_OR_RETURN(sources_, ResolveSources(params_.sources, options_, params_.roots));
  if (IsCrystalFormat(sources_[0].format)) {
    STOKER_RETURN_IF_ERROR(CompleteCrystals(params_.roots, &options_));
  } else {
    STOKER_RETURN_IF_ERROR(RefuseCrystals(options_));
  }
  STOKER_ASSIGN_OR_RETURN(files_, StatSources(sources_, options_));
  return cache_.Make();
}

// By the files' times alone: immediate at any size.
bool IngestJob::Steps::IsUnchanged() {
  absl::StatusOr<v1::Dataset> record = ReadRecord(cache_.Record(params_.name));
  if (!record.ok() || !RecordCovers(*record, options_, files_)) return false;
  absl::StatusOr<v1::StoreManifest> manifest = ReadCompleteStore(cache_.Store(record->store()));
  if (!manifest.ok()) return false;
  result_.dataset = *std::move(record);
  result_.manifest = *std::move(manifest);
  result_.unchanged = true;
  return true;
}

absl::Status IngestJob::Steps::Hash() {
  uint64_t total = 0;
  for (const v1::SourceFile& file : files_) total += file.size_bytes();
  StartPhase("hashing", total);
  const auto progress = [this](uint64_t bytes) {
    AddProgress([&](v1::IngestEvent::Progress* p) { p->set_bytes_done(p->bytes_done() + bytes); });
    return !cancelled_.load(std::memory_order_relaxed);
  };
  STOKER_RETURN_IF_ERROR(HashFiles(params_.hash_threads, progress, &files_));
  id_ = StoreId(sources_, files_, options_);
  return absl::OkStatus();
}

// The name for a store that is there already; false when it is not, or not whole.
absl::StatusOr<bool> IngestJob::Steps::UseExistingStore() {
  STOKER_ASSIGN_OR_RETURN(const UniqueFd lock, cache_.Lock());
  absl::StatusOr<v1::StoreManifest> manifest = ReadCompleteStore(cache_.Store(id_));
  if (!manifest.ok()) return false;
  result_.manifest = *std::move(manifest);
  result_.unchanged = true;
  STOKER_RETURN_IF_ERROR(Record());
  return true;
}

absl::Status IngestJob::Steps::Record() {
  v1::Dataset& dataset = result_.dataset;
  dataset.set_name(params_.name);
  dataset.set_store(id_);
  *dataset.mutable_options() = options_;
  dataset.mutable_sources()->Assign(files_.begin(), files_.end());
  dataset.set_ingested_unix_seconds(absl::ToUnixSeconds(started_));
  return WriteRecord(cache_.Record(params_.name), dataset);
}

// Makes the staging directory and holds its lock. Whoever held it may have renamed or removed it meanwhile: then again.
absl::Status IngestJob::Steps::LockStaging() {
  const std::string path = cache_.Staging(id_);
  while (true) {
    STOKER_RETURN_IF_ERROR(CheckCancelled());
    std::error_code error;
    std::filesystem::create_directory(path, error);
    if (error) return ErrnoStatus(error.value(), "making", path);
    absl::StatusOr<UniqueFd> fd = OpenFile(path, O_RDONLY | O_DIRECTORY);
    if (!fd.ok() && absl::IsNotFound(fd.status())) continue;
    if (!fd.ok()) return fd.status();
    STOKER_RETURN_IF_ERROR(LockFile(fd->get(), path, params_.lock_timeout, [this] { return cancelled_.load(); }));
    struct stat held, named;
    if (::fstat(fd->get(), &held) != 0) return ErrnoStatus(errno, "stat", path);
    if (::stat(path.c_str(), &named) != 0 || held.st_ino != named.st_ino) continue;
    staging_lock_ = *std::move(fd);
    return absl::OkStatus();
  }
}

absl::Status IngestJob::Steps::MakeShards() {
  STOKER_ASSIGN_OR_RETURN(units_, PlanUnits(sources_, options_));
  uint64_t total = 0;
  for (Unit& unit : units_) {
    unit.set_shard_path(absl::StrFormat("%s/shard-%05d.safetensors", cache_.Staging(id_), unit.unit()));
    total += unit.end_bytes() - unit.begin_bytes();
  }
  unit_bytes_.assign(units_.size(), 0);
  {
    const std::lock_guard lock(mutex_);
    progress_.set_units_total(units_.size());
  }
  StartPhase("reading", total);
  std::vector<std::string> texts;
  STOKER_RETURN_IF_ERROR(RunUnits(&texts));
  for (const std::string& text : texts) {
    STOKER_ASSIGN_OR_RETURN(UnitSummary summary, UnitSummary::FromJson(text));
    summaries_.push_back(std::move(summary));
  }
  return CheckUnchanged(files_);
}

// Runs the units whose shards are not ready from an interrupted ingest.
absl::Status IngestJob::Steps::RunUnits(std::vector<std::string>* summaries) {
  summaries->resize(units_.size());
  std::vector<Unit> missing;
  const auto note = [this](const Unit& unit, uint64_t bytes_done, bool finished, bool resumed) {
    AddProgress([&](v1::IngestEvent::Progress* p) {
      uint64_t& seen = unit_bytes_[unit.unit()];
      const uint64_t now = finished ? unit.end_bytes() - unit.begin_bytes() : std::max(seen, bytes_done);
      p->set_bytes_done(p->bytes_done() + now - seen);
      seen = now;
      p->set_units_done(p->units_done() + (finished ? 1 : 0));
      p->set_units_resumed(p->units_resumed() + (resumed ? 1 : 0));
    });
  };
  for (const Unit& unit : units_) {
    absl::StatusOr<std::string> ready = ReadySummary(unit);
    if (!ready.ok()) {
      missing.push_back(unit);
      continue;
    }
    (*summaries)[unit.unit()] = *std::move(ready);
    note(unit, 0, true, true);
  }
  STOKER_ASSIGN_OR_RETURN(
      const std::vector<std::string> made,
      runner_->Run(
          missing, [&](const Unit& unit, uint64_t bytes, bool finished) { note(unit, bytes, finished, false); },
          [this] { return cancelled_.load(std::memory_order_relaxed); }));
  if (made.size() != missing.size()) return absl::InternalError("ingest: the runner left units out");
  for (size_t i = 0; i < made.size(); ++i) {
    std::string& summary = (*summaries)[missing[i].unit()];
    summary = made[i];
    if (summary.empty()) {
      STOKER_ASSIGN_OR_RETURN(summary, ReadySummary(missing[i]));
    }
  }
  return CheckCancelled();
}

absl::Status IngestJob::Steps::Publish() {
  StartPhase("publishing", 0);
  STOKER_ASSIGN_OR_RETURN(MergedStore merged, MergeSummaries(units_, summaries_, options_));
  STOKER_RETURN_IF_ERROR(WriteStore(std::move(merged)));
  STOKER_RETURN_IF_ERROR(CheckCancelled());
  STOKER_ASSIGN_OR_RETURN(const UniqueFd lock, cache_.Lock());
  // What stands there is not whole, or UseExistingStore would have taken it.
  STOKER_RETURN_IF_ERROR(RemoveTree(cache_.Store(id_)));
  if (::rename(cache_.Staging(id_).c_str(), cache_.Store(id_).c_str()) != 0) {
    return ErrnoStatus(errno, "publishing", cache_.Store(id_));
  }
  STOKER_RETURN_IF_ERROR(SyncDirectory(cache_.stores()));
  STOKER_RETURN_IF_ERROR(Record());
  return SyncDirectory(cache_.datasets());
}

// Completes the staging directory: patched shards, manifest, nothing else.
absl::Status IngestJob::Steps::WriteStore(MergedStore merged) {
  v1::StoreManifest& manifest = merged.manifest;
  manifest.set_id(id_);
  std::vector<std::string> keep = {store::kManifestName};
  for (size_t i = 0; i < merged.patches.size(); ++i) {
    STOKER_RETURN_IF_ERROR(CheckCancelled());
    const ShardPatch& patch = merged.patches[i];
    const std::filesystem::path path(units_[patch.unit].shard_path());
    STOKER_RETURN_IF_ERROR(PatchShard(path.string(), patch));
    v1::ShardInfo* shard = manifest.mutable_shards(static_cast<int>(i));
    shard->set_file(path.filename().string());
    shard->set_size_bytes(std::filesystem::file_size(path));
    manifest.set_bytes(manifest.bytes() + shard->size_bytes());
    keep.push_back(shard->file());
    AddProgress([&](v1::IngestEvent::Progress* p) { p->set_samples(p->samples() + shard->samples()); });
  }
  const std::string staging = cache_.Staging(id_);
  if (manifest.kind() == v1::CRYSTALS) {
    STOKER_ASSIGN_OR_RETURN(const std::vector<std::string> tables,
                            CompleteCrystalStore(staging, merged.elements, options_, &manifest));
    keep.insert(keep.end(), tables.begin(), tables.end());
  }
  std::sort(keep.begin(), keep.end());
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(staging, error)) {
    const std::string name = entry.path().filename().string();
    if (!std::binary_search(keep.begin(), keep.end(), name)) STOKER_RETURN_IF_ERROR(RemoveTree(entry.path().string()));
  }
  STOKER_RETURN_IF_ERROR(store::WriteManifest(absl::StrCat(staging, "/", store::kManifestName), manifest));
  result_.manifest = manifest;
  return SyncDirectory(staging);
}

absl::StatusOr<IngestResult> IngestJob::Steps::Run() {
  STOKER_RETURN_IF_ERROR(Resolve());
  if (!IsUnchanged()) {
    STOKER_RETURN_IF_ERROR(Hash());
    STOKER_ASSIGN_OR_RETURN(bool exists, UseExistingStore());
    if (!exists) {
      STOKER_RETURN_IF_ERROR(LockStaging());
      STOKER_ASSIGN_OR_RETURN(exists, UseExistingStore());  // made by whoever held the lock
      if (exists) STOKER_RETURN_IF_ERROR(RemoveTree(cache_.Staging(id_)));
    }
    if (!exists) {
      absl::Status status = MakeShards();
      if (status.ok()) status = Publish();
      // Bad data stays bad under this id, and a full disk wants its space back: neither is worth keeping.
      const bool hopeless = absl::IsInvalidArgument(status) || absl::IsResourceExhausted(status);
      if (hopeless) (void)RemoveTree(cache_.Staging(id_));  // the error that counts is the first
      if (!status.ok()) return status;
    }
  }
  result_.seconds = absl::ToDoubleSeconds(absl::Now() - started_);
  return std::move(result_);
}

IngestJob::IngestJob(IngestParams params, UnitRunner* runner, ProgressSink sink)
    : params_(std::move(params)), runner_(runner), sink_(std::move(sink)) {}

absl::StatusOr<IngestResult> IngestJob::Run() {
  absl::StatusOr<IngestResult> result = Steps(params_, runner_, sink_, cancelled_).Run();
  const absl::Status& status = result.status();
  const bool about_cache = !status.ok() && absl::StrContains(status.message(), params_.cache_dir);
  if (about_cache && absl::IsResourceExhausted(status)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(status.message(), "; free space there, or start stokerd with another --cache-dir"));
  }
  if (about_cache && absl::IsPermissionDenied(status)) {
    return absl::PermissionDeniedError(
        absl::StrCat(status.message(), "; let stokerd write there, or start it with another --cache-dir"));
  }
  if (!status.ok()) return absl::Status(status.code(), status.message());  // what is for the readers alone ends here
  return result;
}

}  // namespace stoker::ingest
