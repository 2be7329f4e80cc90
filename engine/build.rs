//! Compiles the CUDA kernels, if the feature `cuda` is on: each `src/kernels/cuda/*.cu` becomes a fat binary with
//! machine code for every architecture, and PTX of the newest for chips that come after it.
//!
//! `OUT_DIR/kernels.rs` lists them. `CUDA_ARCHS=90` compiles for that one alone, which is quicker while working on a
//! kernel. A source is compiled again only if it, what it includes, the compiler or the options changed.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Mutex,
    thread,
};

const SOURCES: &str = "src/kernels/cuda";
/// Ampere, Ada and Hopper.
const ARCHITECTURES: &str = "80,89,90";
/// Compilers at a time, at most: each takes a core and up to a gigabyte.
const MAX_COMPILERS: usize = 4;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    match compile_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compile_all() -> Result<()> {
    println!("cargo::rerun-if-changed={SOURCES}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let compiler = Compiler::find()?;
    let sources = sources()?;
    let (queue, failures) = (Mutex::new(sources.iter()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(source) = next(&queue) {
            if let Err(error) = compiler.compile(source, &fat_binary(&out, source)) {
                failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(error.to_string());
            }
        }
    };
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    thread::scope(|scope| {
        for _ in 0..MAX_COMPILERS.min(jobs) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner()?;
    if failures.is_empty() { list(&out, &sources) } else { Err(failures.join("\n").into()) }
}

/// Takes a source off the queue; the lock is free again while it is compiled.
fn next<'a>(queue: &Mutex<impl Iterator<Item = &'a PathBuf>>) -> Option<&'a PathBuf> {
    queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next()
}

/// Every kernel source, in the order of their names.
fn sources() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(SOURCES)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut sources: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    sources.retain(|path| path.extension() == Some(OsStr::new("cu")));
    sources.sort();
    Ok(sources)
}

fn stem(source: &Path) -> String {
    source.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn fat_binary(out: &Path, source: &Path) -> PathBuf {
    out.join(stem(source)).with_extension("fatbin")
}

/// Writes `kernels.rs`: the sources' names, and what they were compiled to.
fn list(out: &Path, sources: &[PathBuf]) -> Result<()> {
    let mut text = "/// The kernels: each source's name, and its fat binary.\n\
                    pub(super) static MODULES: &[(&str, &[u8])] = &[\n"
        .to_owned();
    for source in sources {
        writeln!(text, "    ({:?}, include_bytes!({:?})),", stem(source), fat_binary(out, source))?;
    }
    text.push_str("];\n");
    Ok(fs::write(out.join("kernels.rs"), text)?)
}

/// NVIDIA's compiler, and what it is told.
struct Compiler {
    program: PathBuf,
    version: Vec<u8>,
    options: Vec<String>,
}

impl Compiler {
    fn find() -> Result<Self> {
        for name in ["NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_TOOLKIT_CACHE", "CUDA_ARCHS"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        let program = program()?;
        let output = Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|error| format!("{} does not run: {error}", program.display()))?;
        Ok(Self { program, version: output.stdout, options: options()? })
    }

    /// Compiles `source` to `output`, unless it is there already.
    fn compile(&self, source: &Path, output: &Path) -> Result<()> {
        let (key, key_file) = (self.key(source)?, output.with_extension("key"));
        if output.exists() && fs::read_to_string(&key_file).is_ok_and(|old| old == key) {
            return Ok(());
        }
        // From here on the output is no longer what an old key says.
        let _ = fs::remove_file(&key_file);
        let compiled = Command::new(&self.program).args(&self.options).arg("-o").arg(output).arg(source).output()?;
        let messages = String::from_utf8_lossy(&compiled.stderr) + String::from_utf8_lossy(&compiled.stdout);
        if !compiled.status.success() {
            return Err(format!("{}: nvcc failed ({})\n{messages}", source.display(), compiled.status).into());
        }
        for line in messages.lines().filter(|line| !line.trim().is_empty()) {
            println!("cargo::warning={line}");
        }
        Ok(fs::write(key_file, key)?)
    }

    /// Changes with everything that the result depends on.
    fn key(&self, source: &Path) -> Result<String> {
        let mut read = BTreeSet::new();
        read_with_includes(source, &mut read)?;
        let mut hasher = DefaultHasher::new();
        (&self.program, &self.version, &self.options).hash(&mut hasher);
        for path in &read {
            fs::read(path)?.hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }
}

/// Adds `path` and what it includes by a relative name, as far as it goes.
fn read_with_includes(path: &Path, read: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !read.insert(path.to_owned()) {
        return Ok(());
    }
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("#include \"")?.split('"').next());
    for included in named.map(|name| Path::new(SOURCES).join(name)).filter(|included| included.exists()) {
        read_with_includes(&included, read)?;
    }
    Ok(())
}

fn options() -> Result<Vec<String>> {
    let architectures = env::var("CUDA_ARCHS").unwrap_or_else(|_| ARCHITECTURES.to_owned());
    let numbers: Vec<u32> = architectures
        .split(',')
        .map(|number| number.trim().parse())
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| format!("CUDA_ARCHS={architectures}: expected numbers such as {ARCHITECTURES}"))?;
    let mut options: Vec<String> =
        ["-std=c++17", "-O3", "-fatbin", "-Xfatbin=-compress-all", "-I", SOURCES].map(str::to_owned).into();
    let newest = numbers.iter().max();
    for number in &numbers {
        let code =
            if Some(number) == newest { format!("[sm_{number},compute_{number}]") } else { format!("sm_{number}") };
        options.push(format!("-gencode=arch=compute_{number},code={code}"));
    }
    Ok(options)
}

/// Where `nvcc` is: as the environment says, on the path, where NVIDIA's packages put it, or where
/// `engine/cuda/toolkit` does.
fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os("NVCC") {
        return Ok(named.into());
    }
    let homes =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates = homes.chain(env::split_paths(&path)).chain(["/usr/local/cuda/bin".into()]).chain(cached());
    candidates.map(|folder| folder.join("nvcc")).find(|program| program.is_file()).ok_or_else(|| {
        "the feature `cuda` needs NVIDIA's compiler, and there is no nvcc in NVCC, CUDA_HOME, CUDA_PATH, PATH or \
             /usr/local/cuda. Install the CUDA toolkit, 13.0 or newer, or let engine/cuda/toolkit fetch a compiler:\n\
             \x20   CUDA_HOME=$(engine/cuda/toolkit) cargo build --features cuda"
            .into()
    })
}

/// The folders that `engine/cuda/toolkit` unpacks compilers to, newest first.
fn cached() -> Vec<PathBuf> {
    let below = |name, folder: &str| env::var_os(name).map(|home| PathBuf::from(home).join(folder));
    let cache = below("CUDA_TOOLKIT_CACHE", "")
        .or_else(|| below("XDG_CACHE_HOME", "llm-gateway-cuda"))
        .or_else(|| below("HOME", ".cache/llm-gateway-cuda"));
    let entries = cache.and_then(|cache| fs::read_dir(cache).ok());
    let mut folders: Vec<PathBuf> =
        entries.into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}
