//! Many questions of which each may have to be waited for, asked side by side.
#![forbid(unsafe_code)]

/// What `ask` gives for each item, in their order, so many asked at one time; `lost` stands for an answer whose thread broke
/// off.
pub fn side_by_side<T: Copy + Send, A: Send>(
    items: &[T],
    at_once: usize,
    ask: impl Fn(T) -> A + Sync,
    lost: impl Fn() -> A,
) -> Vec<A> {
    let mut answers = Vec::with_capacity(items.len());
    for some in items.chunks(at_once) {
        std::thread::scope(|scope| {
            let ask = &ask;
            let asked: Vec<_> = some
                .iter()
                .map(|&item| scope.spawn(move || ask(item)))
                .collect();
            answers.extend(
                asked
                    .into_iter()
                    .map(|one| one.join().unwrap_or_else(|_| lost())),
            );
        });
    }
    answers
}
