//! The device's memory, recordings of its work, and what of both may go wrong without harm.

use cudarc::driver::sys::CUresult;

use super::{
    super::{CudaError, Event, Graph, Pinned, driver::check, launch::Kernel},
    *,
};

#[test]
fn buffers_give_back_what_was_written() {
    let gpu = gpu();
    let numbers: Vec<u32> = (0..1000).collect();
    let buffer = Buffer::of(&gpu, &numbers).unwrap();
    buffer.write(10, &[7, 8]).unwrap();
    buffer.clear(990, 10).unwrap();
    assert_eq!(buffer.read_range(9, 4).unwrap(), [9, 7, 8, 12]);
    assert_eq!(buffer.read_range(989, 3).unwrap(), [989, 0, 0]);
    let copy: Buffer<u32> = Buffer::new(&gpu, 1001).unwrap();
    copy.copy(&buffer).unwrap();
    assert_eq!(copy.read_range(9, 2).unwrap(), [9, 7]);
    assert_eq!(copy.read_range(1000, 1).unwrap(), [0], "new memory is zero");
}

#[test]
fn more_than_there_is_is_an_error_and_no_harm() {
    let gpu = gpu();
    for bytes in [1 << 50, usize::MAX] {
        let refused = Buffer::<u8>::new(&gpu, bytes).map(drop);
        assert!(matches!(refused, Err(CudaError::OutOfMemory { .. } | CudaError::Call { .. })), "{refused:?}");
    }
    assert_eq!(Buffer::of(&gpu, &[5_u8]).unwrap().read().unwrap(), [5]);
}

#[test]
fn what_is_recorded_runs_when_it_is_started_and_each_time_anew() {
    let gpu = gpu();
    let (from, to) = (Buffer::of(&gpu, &[1_i32, 2, 3]).unwrap(), Buffer::<i32>::new(&gpu, 3).unwrap());
    let graph = Graph::record(&gpu, || to.copy(&from)).unwrap();
    assert_eq!(to.read().unwrap(), [0, 0, 0], "only recorded");
    graph.launch().unwrap();
    assert_eq!(to.read().unwrap(), [1, 2, 3]);
    from.write(0, &[4]).unwrap();
    graph.launch().unwrap();
    assert_eq!(to.read().unwrap(), [4, 2, 3]);
}

#[test]
fn a_recording_that_fails_leaves_the_device_usable() {
    let gpu = gpu();
    let buffer = Buffer::<i32>::new(&gpu, 3).unwrap();
    let failed = Graph::record(&gpu, || Err(CudaError::Absent("nothing".to_owned())));
    assert_eq!(failed.map(drop), Err(CudaError::Absent("nothing".to_owned())));
    buffer.write(0, &[9]).unwrap();
    assert_eq!(buffer.read().unwrap(), [9, 0, 0]);
}

#[test]
fn pinned_memory_goes_there_and_back_while_the_host_goes_on() {
    let gpu = gpu();
    let (mut to, mut from) = (Pinned::<i32>::new(&gpu, 4).unwrap(), Pinned::<i32>::new(&gpu, 4).unwrap());
    let (buffer, begun, done) = (Buffer::new(&gpu, 4).unwrap(), Event::new(&gpu).unwrap(), Event::new(&gpu).unwrap());
    to.copy_from_slice(&[1, 2, 3, 4]);
    gpu.bind().unwrap();
    begun.record().unwrap();
    buffer.start_write(&to, 3).unwrap();
    buffer.start_read(&mut from, 4).unwrap();
    done.record().unwrap();
    done.wait().unwrap();
    assert_eq!(*from, [1, 2, 3, 0]);
    assert!(done.since(&begun).unwrap().as_secs() < 60);
}

/// A call that may not be recorded spoils the recording, and nothing else.
#[test]
fn what_may_not_be_recorded_is_an_error_and_no_harm() {
    let gpu = gpu();
    let (from, to) = (Buffer::of(&gpu, &[1_i32, 2]).unwrap(), Buffer::<i32>::new(&gpu, 2).unwrap());
    for _ in 0..2 {
        let waited = Graph::record(&gpu, || to.copy(&from).and_then(|()| from.read().map(drop))).map(drop);
        assert!(matches!(waited, Err(CudaError::Call { .. })), "{waited:?}");
        // Whoever passes over the error learns of it in the end.
        let passed_over = Graph::record(&gpu, || {
            drop(from.read());
            Ok::<(), CudaError>(())
        });
        assert!(passed_over.is_err());
        assert_eq!(to.read().unwrap(), [0, 0]);
    }
    let graph = Graph::record(&gpu, || to.copy(&from)).unwrap();
    gpu.bind().unwrap();
    graph.launch().unwrap();
    assert_eq!(to.read().unwrap(), [1, 2]);
}

#[test]
fn an_empty_buffer_is_as_good_as_any() {
    let gpu = gpu();
    let empty = Buffer::<u32>::of(&gpu, &[]).unwrap();
    empty.write(0, &[]).unwrap();
    empty.copy(&Buffer::new(&gpu, 0).unwrap()).unwrap();
    assert!(empty.len() == 0 && empty.bytes() == 0 && empty.read().unwrap().is_empty());
    assert!(Pinned::<u8>::new(&gpu, 0).unwrap().is_empty());
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    let absent = Kernel::new(&gpu(), "fold_space").map(drop);
    assert!(matches!(&absent, Err(CudaError::Absent(text)) if text.contains("fold_space")), "{absent:?}");
}

/// Recordings of one thread and memory of another do not meet.
#[test]
fn threads_use_the_device_side_by_side() {
    let shared = gpu();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gpu = if thread % 2 == 0 { Arc::clone(&shared) } else { gpu() };
            scope.spawn(move || {
                for round in 0..20 {
                    let numbers: Vec<u32> = (0..500).map(|index| index * 7 + thread + round).collect();
                    let from = Buffer::of(&gpu, &numbers).unwrap();
                    let to = Buffer::<u32>::new(&gpu, 500).unwrap();
                    // One stream is recorded by one thread at a time; these have their own.
                    match thread % 2 {
                        0 => to.copy(&from).unwrap(),
                        _ => Graph::record(&gpu, || to.copy(&from)).and_then(|graph| graph.launch()).unwrap(),
                    }
                    assert_eq!(to.read().unwrap(), numbers);
                }
            });
        }
    });
}

/// Whatever call finds no memory: a request may fail of it, or do without, and the device goes on.
#[test]
fn no_memory_is_not_the_end_and_other_failures_are() {
    for (code, is_final) in [
        (CUresult::CUDA_ERROR_OUT_OF_MEMORY, false),
        (CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, true),
        (CUresult::CUDA_ERROR_LAUNCH_FAILED, true),
    ] {
        let error = check("cuGraphInstantiateWithFlags", code).unwrap_err();
        assert!(error.to_string().contains("cuGraphInstantiateWithFlags"), "{error}");
        assert_eq!(crate::EngineError::from(error).is_final(), is_final, "{code:?}");
    }
}
