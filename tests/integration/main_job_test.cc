// SPDX-License-Identifier: Apache-2.0
// The main job: a file in, batches out, through daemon, workers and client library.
#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using testing::DigestOf;
using testing::Digests;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ImageOptions;
using testing::Images;
using testing::IntegrationTest;
using testing::MakeSamples;
using testing::Read;
using testing::ReadEpoch;
using testing::ReferenceImages;
using testing::Samples;
using testing::StatusIs;

constexpr double kTolerance = 5e-7;

class MainJobTest : public IntegrationTest {
 protected:
  // The batches of one epoch of a new loader.
  std::vector<Batch> ReadBatches(const LoaderOptions& options) {
    std::vector<Batch> batches;
    absl::StatusOr<Loader> loader = client().Open(options);
    EXPECT_OK(loader);
    while (loader.ok()) {
      absl::StatusOr<std::optional<Batch>> batch = loader->Next(absl::Seconds(60));
      EXPECT_OK(batch);
      if (!batch.ok() || !batch->has_value()) break;
      batches.push_back(**batch);
    }
    return batches;
  }
};

template <typename T>
absl::Span<const T> Values(const Batch& batch, absl::string_view name) {
  const absl::StatusOr<TensorView<T>> view = batch.Get<T>(name);
  EXPECT_OK(view);
  return view.ok() ? view->data() : absl::Span<const T>();  // the batch holds the lease
}

std::vector<int64_t> Shape(const Batch& batch, absl::string_view name) {
  const absl::StatusOr<RawTensor> tensor = batch.GetRaw(name);
  EXPECT_OK(tensor);
  return tensor.ok() ? std::vector<int64_t>(tensor->shape.begin(), tensor->shape.end()) : std::vector<int64_t>();
}

std::vector<int64_t> Indices(absl::Span<const Batch> batches) {
  std::vector<int64_t> indices;
  for (const Batch& batch : batches) {
    const absl::Span<const int64_t> of_batch = Values<int64_t>(batch, "index");
    indices.insert(indices.end(), of_batch.begin(), of_batch.end());
  }
  return indices;
}

std::vector<int64_t> Sorted(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<int64_t> Numbers(int64_t count) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(i);
  return numbers;
}

// The largest distance of a value from what it must be.
template <typename T>
double LargestError(absl::Span<const T> values, const std::vector<double>& expected, size_t offset) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(values[offset + i]) - expected[i]));
  }
  return largest;
}

// Every image of the batch is that of the sample its index names.
void ExpectImages(const Batch& batch, const Samples& samples, const ImageOptions& options = {}) {
  const absl::Span<const int64_t> index = Values<int64_t>(batch, "index");
  const absl::Span<const float> gasf = Values<float>(batch, "gasf");
  const absl::Span<const float> gadf = Values<float>(batch, "gadf");
  const size_t size = options.size == 0 ? samples.points : options.size;
  ASSERT_EQ(gasf.size(), index.size() * samples.channels * size * size);
  ASSERT_EQ(gadf.size(), gasf.size());
  for (size_t i = 0; i < index.size(); ++i) {
    for (size_t c = 0; c < samples.channels; ++c) {
      const Images images = ReferenceImages(samples.Series(static_cast<size_t>(index[i]), c), options);
      const size_t offset = (i * samples.channels + c) * size * size;
      EXPECT_LE(LargestError(gasf, images.gasf, offset), kTolerance) << "gasf of sample " << index[i];
      EXPECT_LE(LargestError(gadf, images.gadf, offset), kTolerance) << "gadf of sample " << index[i];
    }
  }
}

// ---- every sample once, and right ----

class MainJobWithWorkersTest : public MainJobTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(MainJobWithWorkersTest, EpochOfATsFile_HasEverySampleOnceWithItsLabelAndImages) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.workers = GetParam()}));
  const Samples samples = MakeSamples(23, 3, 20);
  IngestSamples("written", samples);
  LoaderOptions options = Read("written", 4);
  options.plan.set_shuffle(true);
  options.plan.set_seed(7);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  EXPECT_THAT(loader.classes(), ElementsAre("Gamma", "alpha", "beta"));
  EXPECT_EQ(loader.steps_per_epoch(), 6u);
  const std::vector<Batch> batches = ReadBatches(options);
  ASSERT_EQ(batches.size(), 6u);
  EXPECT_EQ(Sorted(Indices(batches)), Numbers(23));
  EXPECT_NE(Indices(batches), Numbers(23));
  for (const Batch& batch : batches) {
    EXPECT_EQ(Shape(batch, "gasf"), (std::vector<int64_t>{static_cast<int64_t>(batch.samples()), 3, 20, 20}));
    ExpectImages(batch, samples);
    const absl::Span<const int64_t> index = Values<int64_t>(batch, "index");
    const absl::Span<const int64_t> target = Values<int64_t>(batch, "target");
    for (size_t i = 0; i < index.size(); ++i) EXPECT_EQ(target[i], testing::ClassOf(static_cast<size_t>(index[i])));
  }
}

INSTANTIATE_TEST_SUITE_P(Workers, MainJobWithWorkersTest, ::testing::Values("0", "1", "2"));

TEST_F(MainJobTest, Epochs_EachInAnotherOrder_ThenOutOfRange) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(23, 1, 12));
  LoaderOptions options = Read("written", 5, /*epochs=*/3);
  options.plan.set_shuffle(true);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  std::set<std::vector<int64_t>> orders;
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<Batch> batches;
    while (true) {
      ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
      if (!batch) break;
      EXPECT_EQ(batch->epoch(), epoch);
      batches.push_back(*batch);
    }
    EXPECT_EQ(Sorted(Indices(batches)), Numbers(23));
    orders.insert(Indices(batches));
  }
  EXPECT_EQ(orders.size(), 3u);
  EXPECT_THAT(loader.Next(absl::Seconds(60)), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(MainJobTest, EpochOfAnArrayWithNumbersAsTargets_HasThem) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const Samples samples = MakeSamples(9, 2, 16);
  std::vector<double> targets;
  for (int i = 0; i < 18; ++i) targets.push_back(i * 0.25);
  v1::IngestOptions ingest;
  ingest.set_target_array(WriteData("y.npy", testing::ToNpy("<f8", "(9, 2)", targets.data(), targets.size() * 8)));
  EXPECT_EQ(Ingest("array", WriteData("x.npy", ToNpy(samples)), ingest).dataset().samples(), 9u);
  for (const Batch& batch : ReadBatches(Read("array", 4))) {
    ExpectImages(batch, samples);
    const absl::Span<const int64_t> index = Values<int64_t>(batch, "index");
    EXPECT_EQ(Shape(batch, "target"), (std::vector<int64_t>{static_cast<int64_t>(index.size()), 2}));
    const absl::Span<const float> target = Values<float>(batch, "target");
    for (size_t i = 0; i < index.size(); ++i) {
      EXPECT_EQ(target[2 * i], static_cast<float>(static_cast<double>(index[i]) * 0.5));
      EXPECT_EQ(target[2 * i + 1], static_cast<float>(static_cast<double>(index[i]) * 0.5 + 0.25));
    }
  }
}

TEST_F(MainJobTest, SameSourceTwice_IsThereAlready) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const std::string path = WriteData("same.ts", ToTs(MakeSamples(5, 1, 10)));
  EXPECT_FALSE(Ingest("same", path).unchanged());
  EXPECT_TRUE(Ingest("same", path).unchanged());
  EXPECT_TRUE(Ingest("other", path).unchanged());
  ASSERT_OK_AND_ASSIGN(const std::vector<v1::DatasetInfo> datasets, client().Datasets());
  ASSERT_EQ(datasets.size(), 2u);
  EXPECT_EQ(datasets[0].manifest().id(), datasets[1].manifest().id());
  EXPECT_OK(client().Drop("same"));
  EXPECT_EQ(ReadAll(Read("other", 2)).size(), 3u);
  EXPECT_THAT(client().Open(Read("same", 2)), StatusIs(absl::StatusCode::kNotFound, HasSubstr("same")));
}

// ---- the same bytes everywhere ----

TEST_F(MainJobTest, Shuffle_SameBytesFromEveryDaemonAndNumberOfWorkers) {
  const Samples samples = MakeSamples(40, 2, 24);
  LoaderOptions options = Read("written", 7);
  options.plan.set_shuffle(true);
  options.plan.set_seed(99);
  Digests first;
  for (const char* workers : {"2", "0", "1", "3"}) {
    ASSERT_NO_FATAL_FAILURE(StartDaemon({.workers = workers}));
    IngestSamples("written", samples);
    const Digests digests = ReadAll(options);
    if (first.empty()) first = digests;
    EXPECT_EQ(digests, first) << workers << " workers";
    LoaderOptions other = options;
    other.plan.set_seed(100);
    EXPECT_NE(ReadAll(other), first);
    StopDaemon();
  }
  EXPECT_EQ(first.size(), 6u);
}

// Large enough for several parts a batch: who writes which part must not matter.
TEST_F(MainJobTest, LargeBatches_SameBytesHoweverManyPartsTheyAreCutInto) {
  const Samples samples = MakeSamples(30, 4, 96);
  Digests first;
  for (const char* workers : {"0", "3"}) {
    ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "48MiB", .workers = workers}));
    IngestSamples("written", samples);
    const Digests digests = ReadAll(Read("written", 15));
    if (first.empty()) first = digests;
    EXPECT_EQ(digests, first);
    StopDaemon();
  }
  EXPECT_EQ(first.size(), 2u);
}

// ---- positions ----

TEST_F(MainJobTest, StateSavedBeforeEveryBatch_GoesOnWithTheSameBytes) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(23, 1, 16));
  LoaderOptions options = Read("written", 4, /*epochs=*/2);
  options.plan.set_shuffle(true);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  std::vector<std::string> states;
  std::vector<std::pair<std::pair<uint64_t, uint64_t>, uint32_t>> all;  // position and digest
  while (true) {
    states.push_back(loader.SaveState());
    const absl::StatusOr<std::optional<Batch>> batch = loader.Next(absl::Seconds(60));
    if (absl::IsOutOfRange(batch.status())) break;
    ASSERT_OK(batch);
    if (*batch) all.push_back({{(*batch)->epoch(), (*batch)->step()}, DigestOf(**batch)});
  }
  ASSERT_EQ(all.size(), 12u);
  ASSERT_EQ(states.size(), 15u);  // 2 x (6 batches and the end of the epoch), and when all was read
  for (size_t i = 0; i + 1 < states.size(); ++i) {
    EXPECT_LT(states[i].size(), 1024u);
    ASSERT_OK_AND_ASSIGN(Loader resumed, client().Open(options));
    ASSERT_OK(resumed.LoadState(states[i]));
    Digests rest;
    while (resumed.position().epoch() < 2) rest.merge(ReadEpoch(&resumed));
    const size_t read_before = i - i / 7;  // each seventh state is followed by the end of an epoch
    EXPECT_EQ(rest, Digests(all.begin() + static_cast<ptrdiff_t>(read_before), all.end())) << "state " << i;
  }
}

TEST_F(MainJobTest, MovedAboutInItsSession_ReadsWhatALoaderOpenedThereReads_AndReturnsAllLeases) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(23, 1, 16));
  LoaderOptions options = Read("written", 4, /*epochs=*/0);
  options.plan.set_shuffle(true);
  for (const Transport transport : {Transport::kShm, Transport::kInline}) {
    options.transport = transport;
    options.start.set_epoch(0);
    ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
    ASSERT_TRUE(testing::Eventually([&] { return Status().sessions_size() == 1; }));
    const uint64_t session = Status().sessions(0).id();
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> held, loader.Next(absl::Seconds(60)));
    const uint32_t digest = DigestOf(*held);
    for (const uint64_t epoch : {7, 1, 300, 2}) {
      for (uint64_t passed = 0; passed < 20; ++passed) ASSERT_OK(loader.SetEpoch(epoch + 20 - passed));
      ASSERT_OK(loader.Next(absl::Seconds(60)));
      ASSERT_OK(loader.SetEpoch(epoch));
      options.start.set_epoch(epoch);
      ASSERT_OK_AND_ASSIGN(Loader fresh, client().Open(options));
      EXPECT_EQ(ReadEpoch(&loader), ReadEpoch(&fresh)) << "epoch " << epoch;
    }
    EXPECT_OK(held->Check());
    EXPECT_EQ(DigestOf(*held), digest);
    EXPECT_TRUE(testing::Eventually([&] { return Status().sessions_size() == 1; }));
    EXPECT_EQ(Status().sessions(0).id(), session);
    loader.Close();
    const uint64_t kept = transport == Transport::kShm ? 1 : 0;
    EXPECT_TRUE(testing::Eventually([&] { return Status().arena().extents().leased() == kept; }));
  }
}

TEST_F(MainJobTest, DaemonStoppedInTheMiddle_NextDaemonGoesOnFromTheState) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(23, 1, 16));
  LoaderOptions options = Read("written", 4);
  options.plan.set_shuffle(true);
  const Digests whole = ReadAll(options);
  std::string state;
  {
    ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
    for (int i = 0; i < 3; ++i) ASSERT_OK(loader.Next(absl::Seconds(60)));
    state = loader.SaveState();
  }
  StopDaemon();
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.workers = "1"}));
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  ASSERT_OK(loader.LoadState(state));
  EXPECT_EQ(ReadEpoch(&loader), Digests(whole.find({0, 3}), whole.end()));
}

TEST_F(MainJobTest, StateOfAnotherSeed_IsRefused) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(23, 1, 16));
  LoaderOptions options = Read("written", 4);
  options.plan.set_shuffle(true);
  options.plan.set_seed(1);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  options.plan.set_seed(2);
  ASSERT_OK_AND_ASSIGN(Loader other, client().Open(options));
  EXPECT_THAT(other.LoadState(loader.SaveState()), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("seed")));
}

// ---- ranks and tails ----

TEST_F(MainJobTest, Ranks_TogetherAreTheWhole) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(29, 1, 12));
  LoaderOptions whole = Read("written", 12);
  whole.plan.set_shuffle(true);
  const std::vector<Batch> steps = ReadBatches(whole);
  std::vector<std::vector<int64_t>> ranks(steps.size());
  for (uint32_t rank = 0; rank < 3; ++rank) {
    LoaderOptions options = whole;
    options.plan.set_batch_size(4);
    options.plan.set_world(3);
    options.plan.set_rank(rank);
    const std::vector<Batch> batches = ReadBatches(options);
    ASSERT_EQ(batches.size(), steps.size());
    for (size_t i = 0; i < batches.size(); ++i) {
      const std::vector<int64_t> indices = Indices(absl::MakeConstSpan(batches).subspan(i, 1));
      ranks[i].insert(ranks[i].end(), indices.begin(), indices.end());
    }
  }
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(ranks[i], Indices(absl::MakeConstSpan(steps).subspan(i, 1)));
}

TEST_F(MainJobTest, Tails_KeepDropOrPadWhatIsLeft) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(10, 1, 12));
  const auto sizes = [&](v1::TailPolicy tail) {
    LoaderOptions options = Read("written", 4);
    options.plan.set_tail(tail);
    std::vector<uint64_t> samples;
    for (const Batch& batch : ReadBatches(options)) samples.push_back(batch.samples());
    return samples;
  };
  EXPECT_THAT(sizes(v1::KEEP), ElementsAre(4, 4, 2));
  EXPECT_THAT(sizes(v1::DROP), ElementsAre(4, 4));
  EXPECT_THAT(sizes(v1::PAD), ElementsAre(4, 4, 4));
}

// More ranks than samples are left: some get a batch of none, and go on.
TEST_F(MainJobTest, BatchOfNoSamples_ComesAsOne) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("written", MakeSamples(9, 1, 12));
  LoaderOptions options = Read("written", 2);
  options.plan.set_world(4);
  options.plan.set_rank(3);
  const std::vector<Batch> batches = ReadBatches(options);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[1].samples(), 0u);
  EXPECT_EQ(Shape(batches[1], "gasf"), (std::vector<int64_t>{0, 1, 12, 12}));
}

// ---- recipes ----

TEST_F(MainJobTest, SmallerImages_AreOfMeansOfSegments) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const Samples samples = MakeSamples(6, 2, 30);
  IngestSamples("written", samples);
  LoaderOptions options = Read("written", 6);
  options.recipe.mutable_gaf()->set_image_size(22);  // whose cuts are not those of integer division
  options.recipe.mutable_gaf()->mutable_sample_range()->set_low(-0.5);
  options.recipe.mutable_gaf()->mutable_sample_range()->set_high(1);
  for (const Batch& batch : ReadBatches(options)) ExpectImages(batch, samples, {.size = 22, .low = -0.5, .high = 1});
}

TEST_F(MainJobTest, FixedScale_IsThatOfTheRecipe) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const Samples samples = MakeSamples(6, 2, 20);
  IngestSamples("written", samples);
  LoaderOptions options = Read("written", 6);
  options.recipe.mutable_gaf()->set_scale(v1::GafRecipe::FIXED);
  options.recipe.mutable_gaf()->mutable_fixed_range()->set_low(-4);  // values go from -5 to 6: some are clipped
  options.recipe.mutable_gaf()->mutable_fixed_range()->set_high(6);
  for (const Batch& batch : ReadBatches(options)) ExpectImages(batch, samples, {.from = -4, .to = 6});
}

// System A's rounding of the float32 of each pixel. Off by one in at most one of 10,000: the reference goes by the
// angles, and its last place is another.
template <typename T>
void ExpectIntegers(const Batch& batch, const Samples& samples, double most) {
  const absl::Span<const int64_t> index = Values<int64_t>(batch, "index");
  const absl::Span<const T> gasf = Values<T>(batch, "gasf"), gadf = Values<T>(batch, "gadf");
  const size_t image = samples.points * samples.points;
  ASSERT_EQ(gasf.size(), index.size() * samples.channels * image);
  size_t off = 0;
  const auto check = [&](absl::Span<const T> pixels, const std::vector<double>& exact, size_t offset) {
    for (size_t i = 0; i < exact.size(); ++i) {
      const double want = std::nearbyint((static_cast<double>(static_cast<float>(exact[i])) + 1) * most / 2);
      EXPECT_LE(std::abs(pixels[offset + i] - want), 1);
      off += pixels[offset + i] != want ? 1 : 0;
    }
  };
  for (size_t i = 0; i < index.size() * samples.channels; ++i) {
    const size_t sample = static_cast<size_t>(index[i / samples.channels]);
    const Images images = ReferenceImages(samples.Series(sample, i % samples.channels));
    check(gasf, images.gasf, i * image);
    check(gadf, images.gadf, i * image);
  }
  EXPECT_LE(off, 2 * gasf.size() / 10000);
}

TEST_F(MainJobTest, EveryDType_IsTheSameImage) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const Samples samples = MakeSamples(8, 3, 40);
  IngestSamples("written", samples);
  std::map<v1::DType, Batch> batches;
  for (const v1::DType dtype : {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16, v1::DTYPE_U8, v1::DTYPE_U16}) {
    LoaderOptions options = Read("written", 8);
    options.recipe.mutable_gaf()->set_dtype(dtype);
    const std::vector<Batch> read = ReadBatches(options);
    ASSERT_EQ(read.size(), 1u);
    batches[dtype] = read[0];
  }
  const absl::Span<const float> exact = Values<float>(batches[v1::DTYPE_F32], "gasf");
  const absl::Span<const Half> half = Values<Half>(batches[v1::DTYPE_F16], "gasf");
  const absl::Span<const BFloat16> brain = Values<BFloat16>(batches[v1::DTYPE_BF16], "gasf");
  ASSERT_EQ(half.size(), exact.size());
  ASSERT_EQ(brain.size(), exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {  // half of the last place, just below 1; relative for bf16
    ASSERT_NEAR(half[i].ToFloat(), exact[i], 0x1p-12 + kTolerance);
    ASSERT_NEAR(brain[i].ToFloat(), exact[i], 0x1p-9 + kTolerance);
  }
  ExpectIntegers<uint8_t>(batches[v1::DTYPE_U8], samples, 255);
  ExpectIntegers<uint16_t>(batches[v1::DTYPE_U16], samples, 65535);
}

TEST_F(MainJobTest, SeriesAndStatistics_ComeBesideTheImages) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const Samples samples = MakeSamples(5, 2, 21);
  IngestSamples("written", samples);
  LoaderOptions options = Read("written", 5);
  for (const auto field : {v1::GafRecipe::GADF, v1::GafRecipe::SERIES, v1::GafRecipe::STATS}) {
    options.recipe.mutable_gaf()->add_fields(field);
  }
  options.recipe.mutable_gaf()->set_stats(v1::GafRecipe::SIGNAL_BASIC);
  const std::vector<Batch> batches = ReadBatches(options);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_THAT(batches[0].GetRaw("gasf"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(Shape(batches[0], "series"), (std::vector<int64_t>{5, 21, 2}));
  EXPECT_EQ(Shape(batches[0], "stats"), (std::vector<int64_t>{5, 2, 5}));
  const absl::Span<const float> series = Values<float>(batches[0], "series");
  const absl::Span<const float> stats = Values<float>(batches[0], "stats");
  for (size_t i = 0; i < 5; ++i) {
    for (size_t c = 0; c < 2; ++c) {
      std::vector<double> values;
      for (const double value : samples.Series(i, c)) {
        EXPECT_EQ(series[(i * 21 + values.size()) * 2 + c], static_cast<float>(value));
        values.push_back(value);
      }
      std::sort(values.begin(), values.end());
      const float* const of_channel = &stats[(i * 2 + c) * 5];
      EXPECT_FLOAT_EQ(of_channel[2], static_cast<float>(values.back()));
      EXPECT_FLOAT_EQ(of_channel[3], static_cast<float>(values.front()));
      EXPECT_FLOAT_EQ(of_channel[4], static_cast<float>(values[10]));
    }
  }
}

TEST_F(MainJobTest, ReadThatIsInterrupted_SaysHowFarItCame) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("walks", MakeSamples(12, 1, 20));
  for (const int signal : {SIGINT, SIGTERM}) {
    testing::RunningProgram reader({testing::Program("stokerctl"), "--socket", daemon().address(), "--json", "read",
                                    "walks", "--epochs", "0", "--batch-size", "4", "--out", dir().File("out")});
    ASSERT_TRUE(
        testing::Eventually([&] { return std::filesystem::exists(dir().File("out/epoch-1-step-2.safetensors")); }));
    reader.Kill(signal);
    const testing::ProgramResult result = reader.Wait();
    EXPECT_EQ(result.signal, signal);
    EXPECT_THAT(result.out, HasSubstr("\"next\":\""));
    for (const auto& file : std::filesystem::directory_iterator(dir().File("out"))) {
      EXPECT_EQ(file.path().extension(), ".safetensors") << file.path();
    }
    std::filesystem::remove_all(dir().File("out"));
  }
}

TEST_F(MainJobTest, BatchThatCannotBeWritten_IsTheOneThatTheErrorNames) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("walks", MakeSamples(12, 1, 20));
  std::filesystem::create_directories(dir().File("out/epoch-0-step-1.safetensors"));  // where a file shall be
  const testing::ProgramResult result =
      testing::RunProgram({testing::Program("stokerctl"), "--socket", daemon().address(), "read", "walks",
                           "--batch-size", "4", "--out", dir().File("out")});
  EXPECT_EQ(result.exit_code, 6) << result.err;
  EXPECT_THAT(result.err, HasSubstr("read walks at 0:1: "));
}

}  // namespace
}  // namespace stoker
