// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/content.h"

#include <errno.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/text.h"
#include "shared/base/posix.h"
#include "shared/base/sha256.h"
#include "shared/base/status_macros.h"
#include "shared/store/time_series_store.h"

namespace stoker::ingest {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr int64_t kTrustNanoseconds = 2'000'000'000;
constexpr int64_t kSecond = 1'000'000'000;
constexpr size_t kIdDigits = 32;

absl::StatusOr<v1::SourceFile> StatFile(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "reading", path);
  if (!S_ISREG(info.st_mode)) return BadData(path, "not a regular file", "name a file or a directory of files");
  if (info.st_size == 0) return BadData(path, "the file is empty", "remove it from the sources");
  v1::SourceFile file;
  file.set_path(path);
  file.set_size_bytes(static_cast<uint64_t>(info.st_size));
  file.set_mtime_ns(info.st_mtim.tv_sec * kSecond + info.st_mtim.tv_nsec);
  file.set_inode(info.st_ino);
  return file;
}

bool SameFile(const v1::SourceFile& a, const v1::SourceFile& b) {
  return a.path() == b.path() && a.size_bytes() == b.size_bytes() && a.mtime_ns() == b.mtime_ns() &&
         a.inode() == b.inode();
}

absl::Status Changed(const std::string& path) {
  return BadData(path, "the file changed while it was read", "ingest it again when nobody writes to it");
}

absl::Status HashFile(const std::function<bool(uint64_t)>& progress, v1::SourceFile* file) {
  STOKER_ASSIGN_OR_RETURN(const OpenSource source, OpenRegularFile(file->path()));
  Sha256 hash;
  std::string chunk(kChunkBytes, '\0');
  uint64_t done = 0;
  while (true) {
    STOKER_ASSIGN_OR_RETURN(const size_t got,
                            ReadSome(source.fd.get(), done, chunk.data(), chunk.size(), file->path()));
    if (got == 0) break;
    hash.Update(absl::string_view(chunk).substr(0, got));
    done += got;
    if (!progress(got)) return absl::CancelledError(absl::StrCat("reading ", file->path(), ": cancelled"));
  }
  if (done != file->size_bytes()) return Changed(file->path());
  file->set_sha256(hash.HexDigest());
  return absl::OkStatus();
}

struct FileOfSource {
  std::string path;
  v1::SourceFormat format = v1::FORMAT_AUTO;  // AUTO: goes with the sources
  bool name_counts = false;                   // the name is in the store: a label or an id
};

// The sources in order, then their files of targets, then what the options name.
std::vector<FileOfSource> FilesOf(absl::Span<const Source> sources, const v1::IngestOptions& options) {
  std::vector<FileOfSource> files;
  for (const Source& source : sources) {
    const bool label = source.format == v1::CSV && options.csv().label_from_file_name();
    const bool id = source.format == v1::POSCAR || source.format == v1::CIF || source.format == v1::EXTXYZ;
    if (source.files.empty() || source.format == v1::ID_PROP)
      files.push_back({source.path, source.format, label || id});
    for (const std::string& file : source.files) files.push_back({file, source.format, true});
  }
  for (const Source& source : sources) {
    if (!source.target_path.empty()) files.push_back({source.target_path});
  }
  for (const v1::Sidecar& sidecar : options.crystal().sidecar()) files.push_back({sidecar.path()});
  if (!options.crystal().atom_features().empty()) files.push_back({options.crystal().atom_features()});
  return files;
}

}  // namespace

absl::StatusOr<std::vector<v1::SourceFile>> StatSources(absl::Span<const Source> sources,
                                                        const v1::IngestOptions& options) {
  std::vector<v1::SourceFile> files;
  for (const FileOfSource& named : FilesOf(sources, options)) {
    STOKER_ASSIGN_OR_RETURN(v1::SourceFile file, StatFile(named.path));
    files.push_back(std::move(file));
  }
  return files;
}

absl::Status HashFiles(int threads, const std::function<bool(uint64_t bytes)>& progress,
                       std::vector<v1::SourceFile>* files) {
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  absl::Status first;  // guarded by mutex
  const auto work = [&] {
    while (!stop.load()) {
      const size_t i = next.fetch_add(1);
      if (i >= files->size()) return;
      const absl::Status status =
          HashFile([&](uint64_t bytes) { return progress(bytes) && !stop.load(); }, &(*files)[i]);
      if (status.ok()) continue;
      stop.store(true);
      const std::lock_guard lock(mutex);
      if (first.ok()) first = status;
    }
  };
  std::vector<std::thread> pool;
  const size_t count = std::min(files->size(), static_cast<size_t>(std::max(threads, 1)));
  for (size_t i = 1; i < count; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
  return first;
}

absl::Status CheckUnchanged(absl::Span<const v1::SourceFile> files) {
  for (const v1::SourceFile& file : files) {
    const absl::StatusOr<v1::SourceFile> now = StatFile(file.path());
    if (!now.ok() || !SameFile(file, *now)) return Changed(file.path());
  }
  return absl::OkStatus();
}

bool RecordCovers(const v1::Dataset& record, const v1::IngestOptions& options, absl::Span<const v1::SourceFile> files) {
  if (record.options().SerializeAsString() != options.SerializeAsString()) return false;
  if (record.sources_size() != static_cast<int>(files.size())) return false;
  for (int i = 0; i < record.sources_size(); ++i) {
    const v1::SourceFile& file = files[static_cast<size_t>(i)];
    if (!SameFile(record.sources(i), file)) return false;
    if (record.ingested_unix_seconds() < (file.mtime_ns() + kTrustNanoseconds) / kSecond + 1) return false;
  }
  return true;
}

std::string StoreId(absl::Span<const Source> sources, absl::Span<const v1::SourceFile> files,
                    const v1::IngestOptions& options) {
  std::set<v1::SourceFormat> formats;
  bool target_files = false;
  for (const Source& source : sources) {
    formats.insert(source.format);
    target_files = target_files || !source.target_path.empty();
  }
  v1::IngestOptions key = options;
  key.DiscardUnknownFields();
  key.clear_format();
  if (!formats.contains(v1::CSV)) key.clear_csv();
  if (!formats.contains(v1::NPY)) {
    key.clear_layout();
    key.clear_data_array();
  }
  if (!formats.contains(v1::NPY) || target_files) key.clear_target_array();  // its content is hashed instead
  for (v1::Sidecar& sidecar : *key.mutable_crystal()->mutable_sidecar()) {  // so is theirs, but the kind is in the name
    sidecar.set_path(std::filesystem::path(sidecar.path()).extension().string());
  }
  if (!key.crystal().atom_features().empty()) key.mutable_crystal()->set_atom_features("table");
  if (!options.has_crystal()) key.clear_crystal();
  const std::string option_bytes = key.SerializeAsString();
  std::string text = absl::StrCat("stoker store ", store::kStoreVersion, "\n", option_bytes.size(), "\n", option_bytes);
  const std::vector<FileOfSource> named = FilesOf(sources, options);
  for (size_t i = 0; i < files.size(); ++i) {
    absl::StrAppend(&text, "\n", static_cast<int>(named[i].format), " ", files[i].sha256());
    if (named[i].name_counts) absl::StrAppend(&text, " ", std::filesystem::path(files[i].path()).filename().string());
  }
  return Sha256Hex(text).substr(0, kIdDigits);
}

}  // namespace stoker::ingest
